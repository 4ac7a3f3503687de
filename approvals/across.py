"""Actions that wait, across runs and batches: filtered by columns, decided together, each in its own batch."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.access import Access, Right, rows
from approvals import inbox
from approvals.inbox import Line, Outcome
from approvals.undo import Taken, revoke
from runs.engine.types import ActionStatus, Risk
from runs.models import Action
from runs.previews import counted

PAGE = 100
TYPES = ("amount", "email", "record", "table", "file", "http", "arguments")
TOGETHER = dt.timedelta(seconds=5)
HEAVY = ("preconditions", "result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The filters as they were typed; what can't be read is named in `errors` and filters nothing."""

    agent: str = ""
    risk: str = ""
    type: str = ""
    least: str = ""
    most: str = ""
    older: str = ""  # minutes
    q: str = ""

    @property
    def errors(self) -> dict[str, str]:
        found = {}
        for name in ("least", "most"):
            if getattr(self, name) and _amount(getattr(self, name)) is None:
                found[name] = "Write an amount such as 250 or 49.90."
        if self.older and not (self.older.isdecimal() and len(self.older) < 7):
            found["older"] = "Write whole minutes."
        return found

    @property
    def folded(self) -> int:
        """How many filters besides the search are set: on a phone they are folded."""
        return sum(bool(each) for each in (self.agent, self.risk, self.type, self.least, self.most, self.older))

    @property
    def is_any(self) -> bool:
        return bool(self.q or self.folded)


def read(data: Mapping[str, str]) -> Wanted:
    return Wanted(**{name: str(data.get(name, "")).strip()[:200] for name in Wanted.__slots__})


def waiting(access: Access, wanted: Wanted) -> QuerySet[Action]:
    """Soonest deadline first; a constant number of queries when read."""
    found = rows(access, Action).filter(status=ActionStatus.PENDING, kind="action", batch__status="open")
    if wanted.agent:
        found = found.filter(run__agent__slug=wanted.agent)
    if wanted.risk in list(Risk):
        found = found.filter(risk=wanted.risk)
    if wanted.type in TYPES:
        found = found.filter(preview_type=wanted.type)
    if (least := _amount(wanted.least)) is not None:
        found = found.filter(amount__gte=least)
    if (most := _amount(wanted.most)) is not None:
        found = found.filter(amount__lte=most)
    if wanted.older and "older" not in wanted.errors:
        found = found.filter(created_at__lte=timezone.now() - dt.timedelta(minutes=int(wanted.older)))
    for word in wanted.q.split()[:8]:
        texts = ("title", "tool", "reasoning", "batch__why", "run__task", "run__agent__slug")
        matches = Q()
        for text in texts:
            matches |= Q(**{f"{text}__icontains": word})
        found = found.filter(matches)
    return found.select_related("run__agent", "run__agent_version", "batch").order_by("expires_at", "id")


def agents(access: Access) -> list[str]:
    found = rows(access, Action).filter(status=ActionStatus.PENDING, batch__status="open")
    return list(found.order_by("run__agent__slug").values_list("run__agent__slug", flat=True).distinct())


def decide(access: Access, lines: Sequence[Line], versions: Mapping[uuid.UUID, int]) -> list[Outcome]:
    """One outcome a line, in their order. Each batch is decided by itself: what fails in one keeps no other from
    applying. An action that is nobody's, or another team's, has no batch here and is answered as unknown."""
    found = rows(access, Action).filter(id__in=[line.action for line in lines], batch__isnull=False)
    batch_of = dict(found.values_list("id", "batch_id"))
    outcomes: dict[uuid.UUID, Outcome] = {}
    for batch_id in dict.fromkeys(batch_of.values()):
        mine = [line for line in lines if batch_of.get(line.action) == batch_id]
        if batch_id is not None:
            version = versions.get(batch_id, 1)
            for outcome in inbox.decide(access, batch_id, version, mine, channel="web", from_list=True):
                outcomes[outcome.action] = outcome
    return [outcomes.get(line.action) or _unknown(line.action) for line in lines]


def take_back(access: Access, lines: Sequence[Taken], *, channel: str) -> list[Outcome]:
    """One outcome a line, in their order: each batch by itself, as far as each action's own window allows. Raises
    MissingRight."""
    access.require(Right.DECIDE)
    found = rows(access, Action).filter(id__in=[line.action for line in lines], batch__isnull=False)
    batch_of = dict(found.values_list("id", "batch_id"))
    outcomes: dict[uuid.UUID, Outcome] = {}
    for batch_id in dict.fromkeys(batch_of.values()):
        if batch_id is not None:
            mine = [line for line in lines if batch_of.get(line.action) == batch_id]
            outcomes |= {outcome.action: outcome for outcome in revoke(access, batch_id, mine, channel=channel)}
    return [outcomes.get(line.action) or _unknown(line.action) for line in lines]


@dataclass(frozen=True, slots=True)
class Held:
    """What was approved together and has not begun: it can be taken back together. Never empty."""

    actions: tuple[Action, ...]

    @property
    def lead(self) -> str:
        runs = len({action.run_id for action in self.actions})
        number = counted(len(self.actions), "action", "actions")
        return f"{number} in {counted(runs, 'run', 'runs')} approved." if runs > 1 else f"{number} approved."

    @property
    def first(self) -> dt.datetime | None:
        return min((action.starts_at for action in self.actions if action.starts_at), default=None)

    @property
    def last(self) -> dt.datetime | None:
        return max((action.starts_at for action in self.actions if action.starts_at), default=None)

    @property
    def begins_together(self) -> bool:
        """Batches are decided one after another: moments apart is together."""
        return self.first is not None and self.last is not None and self.last - self.first < TOGETHER


def held(access: Access, outcomes: Sequence[Outcome]) -> Held | None:
    """Of what was approved just now."""
    approved = [outcome.action for outcome in outcomes if outcome.result is inbox.Result.APPLIED]
    found = rows(access, Action).filter(id__in=approved, status=ActionStatus.APPROVED, starts_at__gt=timezone.now())
    actions = tuple(found.only("id", "digest", "run_id", "starts_at").order_by("starts_at", "id"))
    return Held(actions) if actions else None


def _unknown(action: uuid.UUID) -> Outcome:
    return Outcome(action=action, result=inbox.Result.INVALID, detail="There is no such action.")


def _amount(text: str) -> Decimal | None:
    try:
        value = Decimal(text.replace(",", "").removeprefix("$")) if text else None
    except InvalidOperation:
        return None
    return value if value is not None and value.is_finite() and abs(value) < 10**13 else None
