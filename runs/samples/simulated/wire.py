"""A Reply as the bytes of the Messages API: one JSON message, or its server-sent events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runs.samples.simulated.billing import CHARACTERS_PER_TOKEN, canonical, output_tokens
from runs.samples.simulated.reply import JsonObject, Reply, new_tool_id

JSON_CHARACTERS = 48
# A person reads prose as it appears; nobody reads JSON arguments word by word.
JSON_SPEED = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """One event. `tokens` is what it costs to write, and marks a content delta; `fast` is not prose."""

    event: str
    data: JsonObject
    tokens: float = 0.0
    fast: bool = False

    def encode(self) -> bytes:
        payload = json.dumps({"type": self.event, **self.data}, separators=(",", ":"), ensure_ascii=False)
        return f"event: {self.event}\ndata: {payload}\n\n".encode()


def content_of(reply: Reply) -> list[JsonObject]:
    if reply.blocks is not None:
        return [dict(block) for block in reply.blocks]
    text = reply.text if reply.data is None else json.dumps(reply.data, ensure_ascii=False)
    blocks: list[JsonObject] = [{"type": "text", "text": text}] if text else []
    for call in reply.tools:
        given = call.input if call.raw_input is None else call.raw_input
        blocks.append({"type": "tool_use", "id": call.id or new_tool_id(), "name": call.name, "input": given})
    return blocks


def fit(content: list[JsonObject], max_tokens: int) -> tuple[list[JsonObject], bool]:
    """The content cut to `max_tokens`, and whether it was cut. A block that is not text is kept whole or left out."""
    kept: list[JsonObject] = []
    left = max_tokens
    for block in content:
        need = output_tokens([block])
        if need <= left:
            kept.append(block)
            left -= need
            continue
        if block.get("type") == "text" and left:
            kept.append({**block, "text": block["text"][: left * CHARACTERS_PER_TOKEN]})
        return kept, True
    return kept, False


def stop_reason_of(reply: Reply, content: list[JsonObject], cut: bool) -> str:
    if reply.stop_reason is not None:
        return reply.stop_reason
    if cut:
        return "max_tokens"
    return "tool_use" if any(block.get("type") == "tool_use" for block in content) else "end_turn"


def message(
    identifier: str, model: str, content: list[JsonObject], stop_reason: str | None, reply: Reply, usage: JsonObject
) -> JsonObject:
    return {
        "id": identifier,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        **({"stop_details": reply.stop_details} if reply.stop_details else {}),
        "usage": usage,
    }


def frames(start: JsonObject, content: list[JsonObject], words: int) -> Iterator[Frame]:
    """message_start to the last content_block_stop; `start` is the message with no content and one output token."""
    yield Frame("message_start", {"message": start})
    yield Frame("ping", {})
    for index, block in enumerate(content):
        opened, deltas = _split(block, words)
        yield Frame("content_block_start", {"index": index, "content_block": opened})
        for delta, tokens in deltas:
            fast = delta["type"] not in ("text_delta", "thinking_delta")
            yield Frame("content_block_delta", {"index": index, "delta": delta}, tokens, fast)
        yield Frame("content_block_stop", {"index": index})


def closing(stop_reason: str, reply: Reply, usage: JsonObject) -> Iterator[Frame]:
    delta: JsonObject = {"stop_reason": stop_reason or None, "stop_sequence": None}
    if reply.stop_details:
        delta["stop_details"] = reply.stop_details
    totals = {key: value for key, value in usage.items() if key not in ("cache_creation", "service_tier")}
    yield Frame("message_delta", {"delta": delta, "usage": totals})
    yield Frame("message_stop", {})


def _split(block: JsonObject, words: int) -> tuple[JsonObject, list[tuple[JsonObject, float]]]:
    """The block as it starts, and its deltas with their tokens. A type unknown here is sent whole at its start."""
    kind = block.get("type")
    if kind == "text":
        pieces = _pieces(block["text"], words)
        return {**block, "text": ""}, [({"type": "text_delta", "text": part}, _cost(part)) for part in pieces]
    if kind == "tool_use":
        given: Any = block["input"]
        text = given if isinstance(given, str) else canonical(given)
        parts = [text[at : at + JSON_CHARACTERS] for at in range(0, len(text), JSON_CHARACTERS)]
        deltas = [({"type": "input_json_delta", "partial_json": part}, _cost(part)) for part in parts]
        return {**block, "input": {}}, [({"type": "input_json_delta", "partial_json": ""}, 0.01), *deltas]
    if kind == "thinking":
        thought = [
            ({"type": "thinking_delta", "thinking": part}, _cost(part)) for part in _pieces(block["thinking"], words)
        ]
        signed = {"type": "signature_delta", "signature": block.get("signature", "simulated")}
        return {**block, "thinking": "", "signature": ""}, [*thought, (signed, 0.01)]
    return block, []


def _pieces(text: str, words: int) -> list[str]:
    """Groups of `words` words, each with the white space that follows it; joined again they are the text."""
    singles = re.findall(r"\s*\S+\s*", text) or ([text] if text else [])
    return ["".join(singles[at : at + words]) for at in range(0, len(singles), words)]


def _cost(text: str) -> float:
    return len(text) / CHARACTERS_PER_TOKEN
