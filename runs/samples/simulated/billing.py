"""Token counts and the prompt cache: what a request is billed, from nothing but its own bytes and what came before."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runs.samples.simulated.reply import JsonObject

CHARACTERS_PER_TOKEN = 4
LOOKBACK_BLOCKS = 20
TTL_SECONDS = {"5m": 300.0, "1h": 3600.0}
MAX_ENTRIES = 20_000
SWEEP_SECONDS = 10.0


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def count_tokens(value: Any) -> int:
    """Four characters a token, rounded up; a value other than text counts as its compact JSON."""
    text = value if isinstance(value, str) else canonical(value)
    return max(1, -(-len(text) // CHARACTERS_PER_TOKEN))


@dataclass(frozen=True, slots=True)
class Segment:
    """One cacheable block of a request; `ttl` is set where a cache entry is to end."""

    text: str
    ttl: str | None

    @property
    def tokens(self) -> int:
        return count_tokens(self.text)


def blocks_of(content: Any) -> list[JsonObject]:
    """Content as blocks: the API takes a bare string for one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [block for block in content or [] if isinstance(block, dict)]


def _segment(prefix: str, block: JsonObject) -> Segment:
    marker = block.get("cache_control")
    bare = {key: value for key, value in block.items() if key != "cache_control"}
    return Segment(prefix + canonical(bare), _ttl(marker))


def _ttl(marker: Any) -> str | None:
    return str(marker.get("ttl") or "5m") if isinstance(marker, dict) else None


def segments_of(body: JsonObject) -> list[Segment]:
    """tools, system and messages in the order in which they are hashed; a top-level marker goes on the last block."""
    segments = [_segment("", tool) for tool in body.get("tools") or []]
    segments += [_segment("", block) for block in blocks_of(body.get("system"))]
    for message in body.get("messages") or []:
        segments += [_segment(f"{message.get('role')}:", block) for block in blocks_of(message.get("content"))]
    automatic = _ttl(body.get("cache_control"))
    if automatic and segments and segments[-1].ttl is None:
        segments[-1] = Segment(segments[-1].text, automatic)
    return segments


def prompt_tokens(body: JsonObject) -> int:
    return sum(segment.tokens for segment in segments_of(body))


def output_tokens(content: Sequence[JsonObject]) -> int:
    return sum(count_tokens(block["text"] if block.get("type") == "text" else block) for block in content) or 1


@dataclass(slots=True)
class _Entry:
    expires: float
    ttl: str


class PrefixCache:
    """Prefix entries end at marked blocks. A read looks back from a mark over 20 blocks and refreshes what it finds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[bytes, _Entry] = {}
        self._lock = threading.Lock()
        self._swept = clock()

    def bill(self, body: JsonObject) -> JsonObject:
        """The input side of `usage`; also stores the entries that the request asked for."""
        segments = segments_of(body)
        digests = list(_chain(body, segments))
        marks = [index for index, segment in enumerate(segments) if segment.ttl]
        written = {"5m": 0, "1h": 0}
        with self._lock:
            now = self._clock()
            self._forget_expired(now)
            hit = self._longest_hit(digests, marks, now)
            start = hit + 1
            for mark in marks:
                ttl = segments[mark].ttl or "5m"
                if mark > hit:
                    written["1h" if ttl == "1h" else "5m"] += _sum(segments[start : mark + 1])
                    start = mark + 1
                    self._entries[digests[mark]] = _Entry(now + TTL_SECONDS.get(ttl, TTL_SECONDS["5m"]), ttl)
                elif (entry := self._entries.get(digests[mark])) and entry.expires > now:
                    entry.expires = now + TTL_SECONDS.get(entry.ttl, TTL_SECONDS["5m"])
        return {
            "input_tokens": _sum(segments[start:]),
            "cache_creation_input_tokens": sum(written.values()),
            "cache_creation": {
                "ephemeral_5m_input_tokens": written["5m"],
                "ephemeral_1h_input_tokens": written["1h"],
            },
            "cache_read_input_tokens": _sum(segments[: hit + 1]),
        }

    def _longest_hit(self, digests: list[bytes], marks: list[int], now: float) -> int:
        for mark in reversed(marks):
            for index in range(mark, max(mark - LOOKBACK_BLOCKS, -1), -1):
                entry = self._entries.get(digests[index])
                if entry is not None and entry.expires > now:
                    entry.expires = now + TTL_SECONDS.get(entry.ttl, TTL_SECONDS["5m"])
                    return index
        return -1

    def _forget_expired(self, now: float) -> None:
        if now - self._swept < SWEEP_SECONDS and len(self._entries) <= MAX_ENTRIES:
            return
        self._swept = now
        gone = [digest for digest, entry in self._entries.items() if entry.expires <= now]
        for digest in gone:
            del self._entries[digest]
        while len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]


def _sum(segments: Sequence[Segment]) -> int:
    return sum(segment.tokens for segment in segments)


def _chain(body: JsonObject, segments: Sequence[Segment]) -> Iterator[bytes]:
    """Running digests. Tools and system survive a change of tool_choice or thinking; messages do not."""
    before_messages = len(body.get("tools") or []) + len(blocks_of(body.get("system")))
    output = body.get("output_config") or {}
    state = hashlib.blake2b(canonical([body.get("model"), output.get("format")]).encode(), digest_size=16)
    for index, segment in enumerate(segments):
        if index == before_messages:
            state.update(canonical([body.get("tool_choice"), body.get("thinking"), output.get("effort")]).encode())
        state.update(segment.text.encode())
        state.update(b"\0")
        yield state.digest()
