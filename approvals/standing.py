"""How a batch ended, in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from approvals.inbox import PAST
from approvals.models import Verdict
from runs.engine.types import ActionStatus
from runs.models import Action, Batch


def ended_by(batch: Batch, rows: Sequence[Action]) -> tuple[str, dt.datetime | None]:
    """`Marco Ruiz approved this batch`, or who decided what when several did; empty while it is open."""
    if batch.status == "open":
        return "", None
    said = [each for action in rows for each in action.decisions.all() if each.verdict != Verdict.EDIT]
    expired = sum(action.status == ActionStatus.EXPIRED for action in rows)
    if not said:
        return "Nobody decided before this batch expired" if expired else "This batch was withdrawn", batch.closed_at
    people = list(dict.fromkeys(each.actor.label for each in said))
    verdicts = list(dict.fromkeys(each.verdict for each in said))
    who = people[0] if len(people) == 1 else f"{', '.join(people[:-1])} and {people[-1]}"
    word = PAST[Verdict(verdicts[0])] if len(verdicts) == 1 else "decided"
    word = "settled" if word.startswith("settled") else word
    if not expired:
        return f"{who} {word} this batch", max(each.at for each in said)
    rest = ", but nothing ran before this batch expired" if expired == len(rows) else " some of it, the rest expired"
    return f"{who} {word}{rest}", batch.closed_at
