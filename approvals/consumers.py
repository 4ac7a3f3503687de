"""`/ws/inbox/`: access, join, catch up, follow. No logic, and nothing is ever decided here."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.core.exceptions import PermissionDenied

from accounts.access import Right, access_now
from approvals.live import Shown, catch_up, gone
from runs.joining import join, leave
from runs.live import inbox_group

HEAL_EVERY_S = 4.0
NOT_SIGNED_IN = 4401
NOT_ALLOWED = 4403


class _SignedOut(Exception):
    """The session ended while the socket was open."""


class InboxConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    async def connect(self) -> None:
        await self.accept()  # a refusal before this would reach the browser as a nameless 1006
        self.reader: asyncio.Task[None] | None = None
        self.joined = False
        self.bell = asyncio.Event()
        self.heard: list[str] = []
        if not self.scope["user"].is_authenticated:
            await self.close(NOT_SIGNED_IN)
            return
        self.shown = _shown(self.scope["query_string"])
        try:
            self.team_id = await self._send_what_is_new()
        except PermissionDenied:
            await self.close(NOT_ALLOWED)
            return
        except _SignedOut:
            await self.close(NOT_SIGNED_IN)
            return
        self.group = inbox_group(self.team_id)
        self.bell.set()  # what came between the first reading and joining
        self.reader = asyncio.create_task(self._follow())

    async def disconnect(self, code: int) -> None:
        if self.reader is not None:
            self.reader.cancel()
        if getattr(self, "team_id", None):
            await database_sync_to_async(gone)(self.team_id, self.shown)
        if self.joined:
            await leave(self.channel_layer, self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Where the page stands, or that it wants everything once more: see `Shown.hear`."""
        self.heard.append(text_data or "")
        self.bell.set()

    async def ring(self, event: dict[str, Any]) -> None:
        self.bell.set()

    async def _follow(self) -> None:
        """Reads again at each ring, and every few seconds besides, so that a lost ring heals by itself."""
        try:
            while True:
                self.joined = self.joined or await join(self.channel_layer, self.group, self.channel_name)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.bell.wait(), HEAL_EVERY_S)
                self.bell.clear()
                await self._send_what_is_new()
        except PermissionDenied:
            await self.close(NOT_ALLOWED)
        except _SignedOut:
            await self.close(NOT_SIGNED_IN)

    async def _send_what_is_new(self) -> uuid.UUID:
        """The team's id. The right is asked afresh each time: it may go while the socket stays."""
        while self.heard:
            self.shown.hear(self.heard.pop(0))
        read: tuple[uuid.UUID, str] = await database_sync_to_async(self._read)()
        team_id, html = read
        if html:
            with contextlib.suppress(OSError):  # the browser has just gone; `disconnect` is on its way
                await self.send(text_data=html)
        return team_id

    def _read(self) -> tuple[uuid.UUID, str]:
        access = access_now(self.scope["user"], self.scope["session"])
        if access is None:
            raise _SignedOut
        access.require(Right.VIEW)
        return access.team.id, catch_up(access, self.shown)


def _shown(query_string: bytes) -> Shown:
    query = parse_qs(query_string.decode("latin-1"))
    nothing = uuid.UUID(int=0)
    return Shown(newest=_uuid(query.get("newest")) or nothing, opened=_uuid(query.get("batch")))


def _uuid(values: list[str] | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(values[0]) if values else None
    except ValueError:
        return None
