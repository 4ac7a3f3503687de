"""The report of a dry run as its page shows it: what would be done, in groups, with what has changed since."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from accounts.access import Access, Right, rows
from runs import excerpts, executing, previews, staleness
from runs.asked import Chosen
from runs.engine.types import ActionStatus, RunStatus
from runs.models import Action, Run
from runs.previews import Preview, counted, money

SUPERSEDED = (ActionStatus.SUPERSEDED, ActionStatus.REVOKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`can_choose`: nobody chose it yet and it may be now; `changed` says why it is stale."""

    id: uuid.UUID
    digest: str
    tool: str
    title: str
    preview: Preview
    risk: str
    confidence: float | None
    needed: int
    reason: str
    reasoning: str
    irreversible: bool
    changed: str
    status: str
    note: str
    batch_id: uuid.UUID | None
    can_choose: bool
    is_open: bool
    arguments: tuple[tuple[str, str], ...]
    huge: str

    @property
    def is_selected(self) -> bool:
        return self.can_choose and not self.changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One tool's actions. `sum`: what they amount to; `where`: whether they run at once or go to the inbox."""

    icon: str
    title: str
    rows: tuple[Row, ...]
    sum: str
    undo: str
    where: str

    @property
    def ready(self) -> str:
        ready = sum(row.is_selected for row in self.rows)
        return f"{ready} of {len(self.rows)} ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    run: Run
    groups: tuple[Group, ...]
    checked_at: dt.datetime | None
    expires_at: dt.datetime | None
    is_over: bool
    is_working: bool
    may_execute: bool
    chosen_by: str
    begins_at: dt.datetime | None  # until then the choice can be taken back
    may_take_back: bool

    @property
    def rows(self) -> list[Row]:
        return [row for group in self.groups for row in group.rows]

    @property
    def open_rows(self) -> list[Row]:
        return [row for row in self.rows if row.is_open]

    @property
    def selected(self) -> list[Row]:
        return [row for row in self.rows if row.is_selected]

    @property
    def stale(self) -> list[Row]:
        return [row for row in self.open_rows if row.changed]

    @property
    def lines(self) -> list[tuple[str, str, bool]]:
        """Icon, words, and whether it can't be undone, for each kind of what is selected."""
        found = []
        for group in self.groups:
            ready = [row for row in group.rows if row.is_selected]
            if ready:
                found.append((group.icon, _counted(ready), any(row.irreversible for row in ready)))
        return found

    @property
    def at_once(self) -> int:
        return sum(row.needed == 0 for row in self.selected)

    @property
    def to_inbox(self) -> int:
        return len(self.selected) - self.at_once

    @property
    def nothing_changed(self) -> bool:
        return not any(row.status in (ActionStatus.SUCCEEDED, ActionStatus.EXECUTING) for row in self.rows)


def build(access: Access, run: Run) -> Report:
    actions = rows(access, Action).filter(run=run).exclude(status__in=SUPERSEDED)
    found = list(actions.order_by("position", "created_at", "id"))
    choices = rows(access, Chosen).filter(run=run, taken_back_at__isnull=True)
    last = choices.select_related("by").order_by("-number").first()
    ready = run.status == RunStatus.DRY_RUN_READY and not staleness.is_over(run)
    may = access.may(Right.LAUNCH)
    sleeps = executing.sleeps(run, last)
    shown = [_row(action, can_choose=ready and may) for action in found]
    return Report(
        run=run,
        groups=_groups(shown),
        checked_at=min((action.checked_at for action in found if action.checked_at), default=None),
        expires_at=run.ended_at + staleness.REPORT_LIVES if run.ended_at else None,
        is_over=run.status == RunStatus.DRY_RUN_READY and staleness.is_over(run),
        is_working=not run.is_ended,
        may_execute=may and ready,
        chosen_by=last.by.label if last else "",
        begins_at=run.due_at if sleeps else None,
        may_take_back=may and sleeps,
    )


def seconds_until_next_look(report: Report) -> int:
    return 2 if report.is_working else 30


def _row(action: Action, *, can_choose: bool) -> Row:
    preview = previews.present(action)
    is_open = action.status in staleness.PROPOSED and action.batch_id is None
    huge = excerpts.is_huge(action)
    return Row(
        id=action.id,
        digest=action.digest,
        tool=action.tool,
        title=preview.title[: previews.TITLE_LENGTH],
        preview=preview,
        risk=action.risk,
        confidence=action.confidence,
        needed=action.needed,
        reason=action.route_reason,
        reasoning=action.reasoning[:300],
        irreversible=action.irreversible,
        changed=action.changed if is_open else "",
        status="" if is_open else action.status,
        note=action.note,
        batch_id=action.batch_id,
        can_choose=can_choose and is_open,
        is_open=is_open,
        arguments=previews.arguments_of(action.args),
        huge=excerpts.size_of(action) if huge else "",
    )


def _groups(shown: Sequence[Row]) -> tuple[Group, ...]:
    tools = dict.fromkeys(row.tool for row in shown)
    return tuple(_group([row for row in shown if row.tool == tool]) for tool in tools)


def _group(members: Sequence[Row]) -> Group:
    first = members[0]
    final = sum(row.irreversible for row in members)
    asks = sum(row.needed > 0 for row in members)
    where = "Runs at once" if not asks else "Goes to the inbox first"
    return Group(
        icon=first.preview.icon,
        title=f"{first.preview.noun}s".capitalize(),
        rows=tuple(members),
        sum=_counted(members),
        undo="cannot be undone" if final == len(members) else "can be undone" if not final else "partly final",
        where=where if asks in (0, len(members)) else f"{asks} of {len(members)} go to the inbox first",
    )


def _counted(members: Sequence[Row]) -> str:
    """`3 refunds, $204.00` or `2 deletions, 16 records`"""
    words = counted(len(members), members[0].preview.noun, f"{members[0].preview.noun}s")
    effects = [row.preview.effect for row in members]
    sums: dict[str, Decimal] = {}
    for effect in effects:
        if effect.amount is not None:
            sums[effect.currency] = sums.get(effect.currency, Decimal(0)) + effect.amount
    if sums:
        return f"{words}, {' and '.join(money(total, currency) for currency, total in sums.items())}"
    count = sum(effect.count for effect in effects)
    return words if count == len(members) else f"{words}, {counted(count, effects[0].one, effects[0].many)}"
