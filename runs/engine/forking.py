"""Where a run can be cut: which of its recorded steps a fork replays. Pure code over keys of the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from runs.engine.types import StepKind

# What ends a run or belongs to its end: a fork goes on instead.
ENDINGS = ("stopped", "wrap_up", "result", "evaluate:final")
# Limits are columns of the run that asked for more, so nothing of that is replayed.
NOT_REPLAYED = ("raise:", "ask:raise:", "waited:raise:", "warned:")
WITHIN = ("evaluate:after:", "revise:after:")  # between the actions of a batch
OF_NO_TURN = (StepKind.MODEL, StepKind.PLAN, StepKind.MESSAGE, StepKind.EVALUATE, StepKind.RESULT)


@dataclass(frozen=True, slots=True)
class Entry:
    seq: int
    key: str
    kind: StepKind


def replayed(entries: Sequence[Entry], last: int) -> list[Entry]:
    """The steps up to `last` that a fork keeps. Where it would cut through a question to people, or through a
    delegation that has not been answered, it is cut before that: a fork asks anew, and starts its own sub-agents."""
    kept = [entry for entry in entries if entry.seq <= last]
    cuts = [_first(kept, lambda key: key.startswith(ENDINGS)), _open_question(entries, kept), _open_delegation(kept)]
    before = min((cut for cut in cuts if cut is not None), default=None)
    if before is not None:
        return replayed(entries, before - 1)
    return [entry for entry in kept if not entry.key.startswith(NOT_REPLAYED)]


def _open_question(entries: Sequence[Entry], kept: Sequence[Entry]) -> int | None:
    """The seq of the first question whose answers were not all carried out within `kept`. They are once the run has
    gone on to something that is no part of a turn, nor of carrying them out."""
    last = kept[-1].seq if kept else 0
    for entry in kept:
        if entry.key.startswith("ask:") and not entry.key.startswith(NOT_REPLAYED):
            after = (other.seq for other in entries if other.seq > entry.seq and _is_of_no_turn(other))
            if next(after, last + 2) > last + 1:
                return entry.seq
    return None


def _is_of_no_turn(entry: Entry) -> bool:
    return entry.kind in OF_NO_TURN and not entry.key.startswith(WITHIN)


def _open_delegation(kept: Sequence[Entry]) -> int | None:
    answered = {entry.key.removeprefix("tool:") for entry in kept if entry.key.startswith("tool:")}
    started = (e for e in kept if e.key.startswith("delegate:") and e.key.removeprefix("delegate:") not in answered)
    return next((entry.seq for entry in started), None)


def _first(entries: Iterable[Entry], holds: Callable[[str], bool]) -> int | None:
    return next((entry.seq for entry in entries if holds(entry.key)), None)
