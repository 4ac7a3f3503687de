"""Large outputs: stored whole with their step; the model gets the head, the size and a handle to read on with."""

from __future__ import annotations

from typing import Any

from runs.engine.context import as_text
from runs.engine.ports import Journal
from runs.engine.types import Step, StepKind

READER = "output.read"
HEAD_CHARACTERS = 12_000
MOST_CHARACTERS = 16_000  # a little more than the head is given whole: reading on would cost more than it saves
AROUND = 300
MOST_MATCHES = 10

CUT = (
    "{head}\n[The first {shown:,} of {size:,} characters. The rest is stored: read on with {reader}, handle "
    '"{handle}", offset {shown}, or look for a text with `find`.]'
)


def shown(step: Step) -> Any:
    """The step's output as the model is given it."""
    text = as_text(step.output)
    if len(text) <= MOST_CHARACTERS:
        return step.output
    head = text[:HEAD_CHARACTERS]
    reader = READER.replace(".", "__")
    return CUT.format(head=head, shown=len(head), size=len(text), reader=reader, handle=step.key)


def given(output: Any) -> tuple[int, int] | None:
    """How many characters of an output the model is given, and of how many; None when it is given all."""
    size = len(as_text(output))
    return (HEAD_CHARACTERS, size) if size > MOST_CHARACTERS else None


def stored(journal: Journal, handle: str) -> str | None:
    """The whole text behind a handle, or None: only results of this run's own calls have one."""
    step = journal.recorded(handle) if handle.startswith(("tool:", "effect:")) else None
    return as_text(step.output) if step is not None and step.kind is StepKind.TOOL else None


def piece(text: str, offset: int) -> dict[str, Any]:
    """A part of the text; `next_offset` is None at its end."""
    part = text[offset : offset + HEAD_CHARACTERS]
    end = offset + len(part)
    return {"text": part, "offset": offset, "next_offset": end if end < len(text) else None, "size": len(text)}


def matches(text: str, wanted: str, offset: int) -> dict[str, Any]:
    """Where a text occurs from an offset on, each with what stands around it. Upper and lower case are the same."""
    low, wanted, at = text.lower(), wanted.lower(), offset
    places: list[int] = []
    while len(places) < MOST_MATCHES and (at := low.find(wanted, at)) >= 0:
        places.append(at)
        at += len(wanted)
    found = [{"offset": each, "text": text[max(0, each - AROUND) : each + len(wanted) + AROUND]} for each in places]
    more = at if len(places) == MOST_MATCHES and low.find(wanted, at) >= 0 else None
    return {"matches": found, "next_offset": more, "size": len(text)}
