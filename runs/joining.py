"""Joining a group of the channel layer, also while Redis is away: the socket then lives by reading alone."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError


async def join(layer: Any, group: str, channel: str) -> bool:
    """False while Redis is away; tried again with each reading."""
    try:
        await layer.group_add(group, channel)
    except (RedisError, OSError):
        return False
    return True


async def leave(layer: Any, group: str, channel: str) -> None:
    try:
        await layer.group_discard(group, channel)
    except (RedisError, OSError):
        return
