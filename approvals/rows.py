"""The rows of the inbox's list, from columns alone: no preview is read for them, however many actions wait."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from approvals.models import Verdict
from approvals.standing import ended_by
from runs.engine.types import WAITING_ACTIONS, Risk
from runs.models import Action, Batch, Run
from runs.previews import counted, money

KINDS = {
    "email": ("mail", "email", "emails"),
    "record": ("database", "record", "records"),
    "table": ("table", "record", "records"),
    "file": ("file-diff", "file", "files"),
    "http": ("globe", "call", "calls"),
    "limit": ("gauge", "limit", "limits"),
    "question": ("message-square", "question", "questions"),
}
OTHER = ("zap", "action", "actions")
NUMBER = re.compile(r"\d[\d,]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowView:
    id: uuid.UUID
    agent: str
    rest_of_title: str
    run: Run
    version: int
    expires_at: dt.datetime
    is_open: bool
    effects: tuple[tuple[str, str], ...]
    risk: str
    only_asks: bool
    votes: str
    ended: str
    ended_at: dt.datetime | None


def view_row(batch: Batch) -> RowView:
    """Of a batch read through `inbox.with_rows` or `inbox.with_actions`."""
    actions = list(batch.actions.all())
    agent = str(batch.run.agent_version.definition.get("name") or batch.run.agent.slug)
    waiting = [action for action in actions if action.status in WAITING_ACTIONS]
    ended, ended_at = ended_by(batch, actions)
    return RowView(
        id=batch.id,
        agent=agent if batch.title.startswith(agent) else "",
        rest_of_title=batch.title.removeprefix(agent),
        run=batch.run,
        version=batch.version,
        expires_at=batch.expires_at,
        is_open=batch.status == "open",
        effects=tuple(_effects(actions)),
        risk=max((action.risk for action in actions), key=lambda risk: Risk(risk).level, default=Risk.LOW),
        only_asks=all(action.kind == "question" for action in actions),
        votes=_votes(waiting),
        ended=ended,
        ended_at=ended_at,
    )


def _votes(waiting: Sequence[Action]) -> str:
    """`1 of 2`, for the action that is furthest; empty before the first vote."""
    begun = [
        (sum(said.verdict == Verdict.APPROVE for said in action.decisions.all()), action.needed)
        for action in waiting
        if action.needed > 1
    ]
    return "{} of {}".format(*max(begun)) if any(votes for votes, _ in begun) else ""


def _effects(actions: Iterable[Action]) -> Iterable[tuple[str, str]]:
    """Icon and words: `$84.00`, `1 record`, `1 email`."""
    sums: dict[str, Decimal] = {}
    counts: dict[tuple[str, str, str], int] = {}
    for action in actions:
        if action.amount is not None:
            sums[action.currency] = sums.get(action.currency, Decimal(0)) + action.amount
            continue
        words = KINDS.get("question" if action.kind == "question" else action.preview_type, OTHER)
        counts[words] = counts.get(words, 0) + _size(action)
    yield from (("banknote", money(total, currency)) for currency, total in sums.items())
    yield from ((icon, counted(count, one, many)) for (icon, one, many), count in counts.items())


def _size(action: Action) -> int:
    """How many records a table changes stands in its title, which is the system's own."""
    found = NUMBER.search(action.title) if action.preview_type == "table" else None
    return int(found.group().replace(",", "")) if found else 1
