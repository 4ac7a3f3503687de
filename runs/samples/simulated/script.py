"""Fixed answers in order, for tests that must know every turn."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence

from runs.samples.simulated import planning
from runs.samples.simulated.billing import blocks_of, canonical
from runs.samples.simulated.reply import JsonObject, Reply


class Script:
    """Answers each conversation with the same replies in order; a call after the last one is a visible 500.

    Calls of one conversation share system text and first user message (but for cache marks). A retry is a call too.
    Plan and Evaluation requests are answered by `structured` and use up nothing; pass None to script them as well.
    """

    def __init__(
        self,
        replies: Sequence[Reply | str],
        *,
        structured: Callable[[JsonObject], Reply | None] | None = planning.respond,
    ) -> None:
        self._replies = [Reply(text=reply) if isinstance(reply, str) else reply for reply in replies]
        self._structured = structured
        self._positions: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, body: JsonObject) -> Reply:
        aside = self._structured(body) if self._structured else None
        if aside is not None:
            return aside
        key = conversation_key(body)
        with self._lock:
            position = self._positions.get(key, 0)
            self._positions[key] = position + 1
        if position >= len(self._replies):
            raise IndexError(f"the script has {len(self._replies)} replies, and this is call {position + 1}")
        return self._replies[position]


def conversation_key(body: JsonObject) -> str:
    first = [str(block.get("text", "")) for block in blocks_of(body["messages"][0].get("content"))][:1]
    system = [str(block.get("text", "")) for block in blocks_of(body.get("system"))]
    return hashlib.sha256(canonical([system, first]).encode()).hexdigest()
