"""`/ws/runs/{id}/?after={seq}`: access, join, catch up, follow. No logic: `fragments` says what a browser is sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from runs.fragments import Frame, NotAllowed, SignedOut, Watcher
from runs.joining import join, leave

HEAL_EVERY_S = 4.0
TRY_AGAIN = 1011
NOT_SIGNED_IN = 4401
NOT_ALLOWED = 4403

logger = logging.getLogger(__name__)


class RunConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    async def connect(self) -> None:
        await self.accept()  # a refusal before this would reach the browser as a nameless 1006
        self.reader: asyncio.Task[None] | None = None
        self.group = ""
        self.joined = False
        self.bell = asyncio.Event()
        self.reading = True
        self.afresh = False
        user = self.scope["user"]
        if not user.is_authenticated:
            await self.close(NOT_SIGNED_IN)
            return
        run_id = self.scope["url_route"]["kwargs"]["run_id"]
        self.watcher = Watcher(user, self.scope["session"], run_id, _after(self.scope["query_string"]))
        try:
            group = await database_sync_to_async(self.watcher.group)()
        except SignedOut:
            await self.close(NOT_SIGNED_IN)
        except NotAllowed:
            await self.close(NOT_ALLOWED)
        else:
            self.group = group
            self.reader = asyncio.create_task(self._follow())

    async def disconnect(self, code: int) -> None:
        if self.reader is not None:
            self.reader.cancel()
        if self.joined:
            await leave(self.channel_layer, self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A form's answer changed the page, and may be older than what was sent here: everything once more."""
        self.afresh = True
        self.bell.set()

    async def ring(self, event: dict[str, Any]) -> None:
        self.bell.set()

    async def begun(self, event: dict[str, Any]) -> None:
        self.bell.set()  # the steps before it come first, so the reading sends both in order

    async def delta(self, event: dict[str, Any]) -> None:
        html = None if self.reading else self.watcher.delta(event)
        if html is None:
            self.bell.set()
        else:
            await self.send(text_data=html)

    async def _follow(self) -> None:
        """Reads at once, at each ring, and every few seconds besides, so that a lost ring heals by itself."""
        try:
            while True:
                self.joined = self.joined or await join(self.channel_layer, self.group, self.channel_name)
                self.bell.clear()
                again_in_s = await self._send_what_is_new()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.bell.wait(), min(HEAL_EVERY_S, again_in_s))
        except SignedOut:
            await self.close(NOT_SIGNED_IN)
        except NotAllowed:
            await self.close(NOT_ALLOWED)
        except Exception:
            logger.exception("A watcher's reading failed; the browser connects again")
            await self.close(TRY_AGAIN)

    async def _send_what_is_new(self) -> float:
        self.reading = True
        if self.afresh:
            self.afresh = False
            self.watcher.forget_regions()
        frame: Frame = await database_sync_to_async(self.watcher.catch_up)()
        if frame.html:
            with contextlib.suppress(OSError):  # the browser has just gone; `disconnect` is on its way
                await self.send(text_data=frame.html)
        self.reading = False
        return frame.again_in_s


def _after(query_string: bytes) -> int:
    given = parse_qs(query_string.decode("latin-1")).get("after", ["0"])[0]
    return int(given) if given.isascii() and given.isdecimal() and len(given) < 10 else 0
