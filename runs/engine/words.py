"""JSON as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def plain_text(value: Any) -> str:
    """Any JSON value as running text: what is said in it, without brackets and quotes."""
    return " · ".join(piece for piece in _pieces(value, "") if piece)


def _pieces(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _pieces(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _pieces(inner, name)
    elif value is not None and value != "":
        shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        yield shown if name in ("", "text", "content") else f"{name}: {shown}"
