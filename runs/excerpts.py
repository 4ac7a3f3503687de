"""Payloads that are too long for a card: what of them stands there, how large they are, what must be looked at."""

from __future__ import annotations

from dataclasses import dataclass

from runs.engine.types import Risk
from runs.models import Action
from runs.previews import LONG_LINES, TITLE_LENGTH, Preview, arguments_of, counted
from runs.texts import everything

HUGE_LINES = 400
HUGE_CHARACTERS = 20_000
EXCERPT_LINES = 12
EXCERPT_CHARACTERS = 600


def must_see(action: Action, preview: Preview) -> bool:
    """Whether it has to be looked at before it is approved."""
    return Risk(action.risk) in (Risk.HIGH, Risk.CRITICAL) or preview.is_long


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The beginning and the end of an argument that is too long for a card, with what is left out between them."""

    name: str
    head: str
    left_out: str
    tail: str


def is_huge(action: Action) -> bool:
    """Too much for a card among others: the whole of it is shown when asked for."""
    text = everything(action)
    return len(text) > HUGE_CHARACTERS or text.count("\n") > HUGE_LINES


def size_of(action: Action) -> str:
    """`10,000 lines, 210 kB`"""
    text = "\n".join(value for _, value in arguments_of(action.args))
    size = len(text.encode("utf-8", "surrogatepass"))
    return f"{counted(text.count(chr(10)) + 1, 'line', 'lines')}, {max(1, round(size / 1000)):,} kB"


def excerpts_of(action: Action) -> tuple[Excerpt, ...]:
    return tuple(_excerpt(name, value) for name, value in list(arguments_of(action.args))[:LONG_LINES])


def _excerpt(name: str, value: str) -> Excerpt:
    lines = value.split("\n")
    if len(lines) > 2 * EXCERPT_LINES:
        head, tail = "\n".join(lines[:EXCERPT_LINES]), "\n".join(lines[-EXCERPT_LINES // 2 :])
    else:
        head, tail = value, ""
    if len(head) + len(tail) > 2 * EXCERPT_CHARACTERS:
        head, tail = head[:EXCERPT_CHARACTERS], value[-EXCERPT_CHARACTERS // 2 :]
    missing = len(value) - len(head) - len(tail)
    left_out = f"{missing:,} characters are not shown here" if missing > 0 else ""
    return Excerpt(name=name[:TITLE_LENGTH], head=head, left_out=left_out, tail=tail)
