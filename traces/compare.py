"""Two runs against each other: their steps side by side, what each cost, and where they first went different ways."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from accounts.access import Access, rows
from runs.models import Run, Step
from traces.alignment import Key, align

MOST_STEPS = 2_000
REASONING_SHOWN = 600
PLAIN = {
    "same": "Same",
    "arguments": "Other arguments",
    "outcome": "Other outcome",
    "left": "Only left",
    "right": "Only right",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`state` is a key of PLAIN. `cost_change` and `score_change` are right minus left; None where one is not known."""

    left: Step | None
    right: Step | None
    state: str
    cost_change: Decimal | None
    score_change: float | None
    reasoning: tuple[str, str] | None

    @property
    def plain(self) -> str:
        return PLAIN[self.state]

    @property
    def pair(self) -> tuple[Step | None, Step | None]:
        return self.left, self.right


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`first` is the place in `rows` of the first divergence: another step, other arguments or another outcome."""

    left: Run
    right: Run
    rows: tuple[Row, ...]
    first: int | None
    cost_change: Decimal | None
    duration_change_ms: int | None
    score: tuple[float | None, float | None]
    cut: bool
    most: int = MOST_STEPS

    @property
    def runs(self) -> tuple[Run, Run]:
        return self.left, self.right

    @property
    def took(self) -> tuple[int | None, int | None]:
        return _took_ms(self.left), _took_ms(self.right)

    @property
    def apart_ms(self) -> int:
        return abs(self.duration_change_ms or 0)

    @property
    def first_row(self) -> Row | None:
        return None if self.first is None else self.rows[self.first]

    @property
    def summary(self) -> list[tuple[str, int]]:
        """How many rows are in each state, without those that none is in."""
        counts = Counter(row.state for row in self.rows)
        return [(words.lower(), counts[state]) for state, words in PLAIN.items() if counts[state]]


def compare(access: Access, left: Run, right: Run) -> Comparison:
    """Runs that the asker may see. Of each the first MOST_STEPS steps."""
    steps = [_steps(access, run) for run in (left, right)]
    keys = [[_key(step) for step in side] for side in steps]
    made = tuple(
        _row(
            None if a is None else steps[0][a],
            None if b is None else steps[1][b],
            a is not None and b is not None and keys[0][a] == keys[1][b],
        )
        for a, b in align(keys[0], keys[1])
    )
    priced = not left.unpriced_steps and not right.unpriced_steps
    return Comparison(
        left=left,
        right=right,
        rows=made,
        first=next((place for place, row in enumerate(made) if row.state != "same"), None),
        cost_change=right.cost_usd - left.cost_usd if priced else None,
        duration_change_ms=_difference(_took_ms(left), _took_ms(right)),
        score=(_lowest(steps[0]), _lowest(steps[1])),
        cut=max(left.last_seq, right.last_seq) > MOST_STEPS,
    )


def find_run(access: Access, text: str) -> Run | None:
    """By number (R-12 or 12) or id."""
    runs = rows(access, Run).select_related("agent", "agent_version", "owner")
    plain = text.strip().lower().removeprefix("r-")
    if plain.isascii() and plain.isdigit() and len(plain) < 10:
        return runs.filter(number=int(plain)).first()
    try:
        return runs.filter(id=uuid.UUID(plain)).first()
    except ValueError:
        return None


def _steps(access: Access, run: Run) -> list[Step]:
    return list(rows(access, Step).filter(run=run).select_related("payload").order_by("seq")[:MOST_STEPS])


def _key(step: Step) -> Key:
    """A model's turn is a turn whatever it was sent; a tool is called with its arguments."""
    payload = getattr(step, "payload", None)
    arguments: Hashable = ""
    if step.kind == "tool" and payload is not None:
        arguments = json.dumps(payload.input, sort_keys=True)
    return Key((step.kind, step.tool), arguments)


def _row(left: Step | None, right: Step | None, same: bool) -> Row:
    if left is None or right is None:
        state = "right" if left is None else "left"
        return Row(left=left, right=right, state=state, cost_change=None, score_change=None, reasoning=None)
    if not same:
        state = "arguments"
    else:
        state = "same" if left.status == right.status and _outcome(left) == _outcome(right) else "outcome"
    both_priced = left.cost_usd is not None and right.cost_usd is not None
    return Row(
        left=left,
        right=right,
        state=state,
        cost_change=right.cost_usd - left.cost_usd if both_priced else None,
        score_change=None if left.score is None or right.score is None else right.score - left.score,
        reasoning=_reasoning(left, right),
    )


def _outcome(step: Step) -> Any:
    """What a tool said; two turns of a model are never word for word the same, so only their tools are compared."""
    return step.payload.output if step.kind == "tool" and hasattr(step, "payload") else None


def _reasoning(left: Step, right: Step) -> tuple[str, str] | None:
    """Both, where they differ."""
    texts = [step.payload.reasoning.strip() if hasattr(step, "payload") else "" for step in (left, right)]
    return None if texts[0] == texts[1] else (texts[0][:REASONING_SHOWN], texts[1][:REASONING_SHOWN])


def _took_ms(run: Run) -> int | None:
    if run.started_at is None or run.ended_at is None:
        return None
    return round((run.ended_at - run.started_at).total_seconds() * 1000)


def _difference(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else right - left


def _lowest(steps: Sequence[Step]) -> float | None:
    return min((step.score for step in steps if step.score is not None), default=None)
