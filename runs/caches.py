"""What a late call lost: tokens that had been in the prompt cache and had to be written again. Pure."""

from __future__ import annotations

import datetime as dt

from runs.engine.types import Step

TTL_5M = dt.timedelta(minutes=5)
TTL_1H = dt.timedelta(hours=1)


def expired_tokens(step: Step, before: Step | None) -> int:
    """How many of the tokens `step` wrote to the cache were there after `before`, until its time to live ran out.
    Each use of an entry starts its time anew; it is kept as long as the last write asked for."""
    if before is None or step.started_at is None or before.started_at is None:
        return 0
    kept_for = TTL_1H if before.usage.cache_write_1h_tokens else TTL_5M
    idle = step.started_at - before.started_at - dt.timedelta(milliseconds=before.duration_ms)
    if idle <= kept_for:
        return 0
    held = before.usage.cache_read_tokens + before.usage.cache_write_5m_tokens + before.usage.cache_write_1h_tokens
    written = step.usage.cache_write_5m_tokens + step.usage.cache_write_1h_tokens
    return max(0, min(held - step.usage.cache_read_tokens, written))
