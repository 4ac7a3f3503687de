"""JSON as coloured text: pieces of (kind, text) that a template puts into spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SHOWN = 8_192

Piece = tuple[str, str]  # kind: key, string, number, word or "" for punctuation


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """`text` is set instead of `pieces` for plain text. `left_out` counts the characters that are not shown."""

    text: str
    pieces: tuple[Piece, ...]
    size: int
    left_out: int


def payload(value: Any, *, whole: bool = False) -> Payload | None:
    """None for nothing. Above SHOWN characters it is cut, and says so, unless it is asked for whole."""
    if value is None or value == "":
        return None
    limit = None if whole else SHOWN
    if isinstance(value, str):
        cut = value if limit is None else value[:limit]
        return Payload(text=cut, pieces=(), size=len(value), left_out=len(value) - len(cut))
    pieces, shown, size = [], 0, 0
    for kind, text in _pieces(value, ""):
        size += len(text)
        room = len(text) if limit is None else limit - shown
        if room > 0:
            pieces.append((kind, text[:room]))
            shown += len(text[:room])
    return Payload(text="", pieces=tuple(pieces), size=size, left_out=size - shown)


def _pieces(value: Any, indent: str) -> Iterator[Piece]:
    if isinstance(value, dict) and value:
        yield from _object(value, indent)
    elif isinstance(value, list) and value:
        yield from _array(value, indent)
    elif isinstance(value, dict | list):
        yield "", "{}" if isinstance(value, dict) else "[]"
    elif isinstance(value, bool) or value is None:
        yield "word", json.dumps(value)
    elif isinstance(value, str):
        yield "string", _quoted(value)
    else:
        yield "number", json.dumps(value)


def _object(value: dict[str, Any], indent: str) -> Iterator[Piece]:
    inner = indent + "  "
    yield "", "{\n"
    for index, (key, item) in enumerate(value.items()):
        yield "", inner
        yield "key", _quoted(str(key))
        yield "", ": "
        yield from _pieces(item, inner)
        yield "", ",\n" if index < len(value) - 1 else "\n"
    yield "", indent + "}"


def _array(value: list[Any], indent: str) -> Iterator[Piece]:
    inner = indent + "  "
    yield "", "[\n"
    for index, item in enumerate(value):
        yield "", inner
        yield from _pieces(item, inner)
        yield "", ",\n" if index < len(value) - 1 else "\n"
    yield "", indent + "]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
