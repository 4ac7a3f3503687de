"""How reviewing goes, and what waiting costs. Sums first: they are about the work, people are told by name only on
request and in the order of the alphabet."""

from __future__ import annotations

import datetime as dt
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, Sum

from accounts.access import Access, rows
from approvals.models import Decision, Verdict
from runs import pricing, rates
from runs.engine.types import ActionStatus, Risk, StepKind, Usage
from runs.models import Action, Batch, Run, Step

WORDS_OF_PEOPLE = (Verdict.APPROVE, Verdict.REJECT, Verdict.ANSWER, Verdict.EDIT)
MOST = 20_000
CACHE_LIFE = dt.timedelta(minutes=5)
"""How long the provider keeps a prompt. A wait that is longer has the whole prompt written again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One decision, as far as it is measured. Seconds; None where nobody could know."""

    person: str
    risk: str
    verdict: str
    review_s: float | None
    wait_s: float
    opened: bool | None
    together: int
    overturned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A group of decisions. Shares are of those of which it is known."""

    name: str
    decisions: int
    review_median_ms: float | None
    wait_median_ms: float | None
    wait_p90_ms: float | None
    opened: float | None
    together: float
    changed: float
    rejected: float
    approvals: int
    overturned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What runs lost while they waited for people. `unpriced`: waits whose model has no known price."""

    runs: int
    idle_ms: int
    batches: int
    expired: int
    waits: int
    cold: int
    cache_usd: Decimal
    unpriced: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    total: Row
    by_risk: tuple[Row, ...]
    by_person: tuple[Row, ...]
    waiting: Waiting
    is_cut: bool


def measure(access: Access, since: dt.datetime) -> Measures:
    """Of the team's decisions since a moment, the newest 20,000 at most. A constant number of queries."""
    said = _said(access, since)
    return Measures(
        total=_row("All", said),
        by_risk=_rows(said, lambda each: each.risk, key=lambda name: -Risk(name).level),
        by_person=_rows(said, lambda each: each.person, key=str.casefold),
        waiting=_waiting(access, since),
        is_cut=len(said) == MOST,
    )


# --- decisions -------------------------------------------------------------------------------------------------------


def _said(access: Access, since: dt.datetime) -> list[Said]:
    """An approval was overturned when the same action was rejected, changed or taken back after it, or revoked."""
    later = Decision.objects.filter(action=OuterRef("action"), at__gt=OuterRef("at")).exclude(
        verdict__in=[Verdict.APPROVE, Verdict.HAPPENED, Verdict.DID_NOT_HAPPEN]
    )
    found = rows(access, Decision).filter(at__gte=since, verdict__in=list(WORDS_OF_PEOPLE))
    found = found.annotate(was_overturned=Exists(later)).select_related("actor", "action__batch").order_by("-at", "-id")
    return [_one(decision) for decision in found[:MOST]]


def _one(decision: Any) -> Said:
    action = decision.action
    asked = action.batch.created_at if action.batch else action.created_at
    revoked = action.status == ActionStatus.REVOKED and action.decided_by_id is not None
    return Said(
        person=decision.actor.label,
        risk=action.risk,
        verdict=decision.verdict,
        review_s=max(0.0, (decision.at - decision.viewed_at).total_seconds()) if decision.viewed_at else None,
        wait_s=max(0.0, (decision.at - asked).total_seconds()),
        opened=decision.opened_details,
        together=decision.decided_together,
        overturned=decision.verdict == Verdict.APPROVE and (decision.was_overturned or revoked),
    )


def _rows(said: Sequence[Said], group: Callable[[Said], str], *, key: Callable[[str], Any]) -> tuple[Row, ...]:
    groups: dict[str, list[Said]] = defaultdict(list)
    for each in said:
        groups[group(each)].append(each)
    return tuple(_row(name, groups[name]) for name in sorted(groups, key=key))


def _row(name: str, said: Sequence[Said]) -> Row:
    known = [each.opened for each in said if each.opened is not None]
    count = max(1, len(said))
    return Row(
        name=name,
        decisions=len(said),
        review_median_ms=_median_ms(each.review_s for each in said if each.review_s is not None),
        wait_median_ms=_median_ms(each.wait_s for each in said),
        wait_p90_ms=_p90_ms(each.wait_s for each in said),
        opened=sum(known) / len(known) if known else None,
        together=statistics.median(each.together for each in said) if said else 0,
        changed=sum(each.verdict == Verdict.EDIT for each in said) / count,
        rejected=sum(each.verdict == Verdict.REJECT for each in said) / count,
        approvals=sum(each.verdict == Verdict.APPROVE for each in said),
        overturned=sum(each.overturned for each in said),
    )


def _median_ms(seconds: Iterable[float]) -> float | None:
    values = list(seconds)
    return statistics.median(values) * 1000 if values else None


def _p90_ms(seconds: Iterable[float]) -> float | None:
    """The smallest value that nine of ten do not exceed."""
    values = sorted(seconds)
    return values[math.ceil(len(values) * 0.9) - 1] * 1000 if values else None


# --- what waiting costs ----------------------------------------------------------------------------------------------


def _waiting(access: Access, since: dt.datetime) -> Waiting:
    runs = (
        rows(access, Run).filter(created_at__gte=since, wait_ms__gt=0).aggregate(count=Count("id"), ms=Sum("wait_ms"))
    )
    expired = Exists(Action.objects.filter(batch=OuterRef("pk"), status=ActionStatus.EXPIRED))
    batches = rows(access, Batch).filter(created_at__gte=since)
    asked = batches.aggregate(count=Count("id"), expired=Count("id", filter=Q(expired)))
    waits = rows(access, Step).filter(kind=StepKind.APPROVAL, key__startswith="waited:", started_at__gte=since)
    cold = waits.filter(duration_ms__gte=CACHE_LIFE.total_seconds() * 1000)
    usd, unpriced = _cache_lost(access, cold)
    return Waiting(
        runs=runs["count"],
        idle_ms=runs["ms"] or 0,
        batches=asked["count"],
        expired=asked["expired"],
        waits=waits.count(),
        cold=cold.count(),
        cache_usd=usd,
        unpriced=unpriced,
    )


def _cache_lost(access: Access, cold: Any) -> tuple[Decimal, int]:
    """What writing the prompt again cost more than reading it would have: for the first call of the model after each
    wait that outlived the cache, at that call's own model and day."""
    after: dict[Any, list[int]] = defaultdict(list)
    for run_id, seq in cold.order_by("-started_at").values_list("run_id", "seq")[:MOST]:
        after[run_id].append(seq)
    calls = rows(access, Step).filter(run__in=list(after), kind=StepKind.MODEL).order_by("run", "seq")
    first: dict[tuple[Any, int], Step] = {}
    for call in calls.select_related("run").only(
        "run_id", "run__simulated", "seq", "model", "started_at", "cache_write_5m_tokens", "cache_write_1h_tokens"
    ):
        for wait in after[call.run_id]:
            if call.seq > wait:
                first.setdefault((call.run_id, wait), call)
    overrides = rates.of_team(access.team.id)
    lost = [_difference(call, overrides) for call in {call.id: call for call in first.values()}.values()]
    return sum((usd for usd in lost if usd is not None), Decimal(0)), sum(usd is None for usd in lost)


def _difference(call: Step, overrides: Any) -> Decimal | None:
    written = Usage(cache_write_5m_tokens=call.cache_write_5m_tokens, cache_write_1h_tokens=call.cache_write_1h_tokens)
    read = Usage(cache_read_tokens=call.cache_write_tokens)
    simulated = call.run.simulated
    dear, cheap = (
        pricing.price(call.model, usage, simulated=simulated, at=call.started_at, overrides=overrides).usd
        for usage in (written, read)
    )
    return None if dear is None or cheap is None else max(Decimal(0), dear - cheap)
