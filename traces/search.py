"""Search over the journal, behind one query language: a page of runs newest first, with the text that matched."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import reduce
from operator import add, or_
from typing import Any

from django.db.models import Case, F, IntegerField, Q, QuerySet, Value, When, Window
from django.db.models.functions import RowNumber

from runs.engine.words import plain_text
from runs.models import Run, Step
from traces import matching
from traces.query import Query
from traces.snippets import Snippet, snippet

LIMIT = 50
MAX_LIMIT = 200
COUNTED = 1_000
MATCHES_PER_RUN = 3


class BadCursor(ValueError):
    """A cursor that this search did not make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    run: Run
    matches: tuple[Snippet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`total` is exact up to COUNTED; from there on it is COUNTED and `total_is_exact` is False."""

    hits: tuple[Hit, ...]
    total: int
    total_is_exact: bool
    next: str | None


@dataclass(frozen=True, slots=True)
class Sort:
    """A column that decides the order, largest first, and how its value is read from a cursor."""

    column: str
    read: Callable[[Any], Any]


def _micros(value: Any) -> dt.timedelta:
    return dt.timedelta(microseconds=int(value))


def _moment(value: Any) -> dt.datetime:
    moment = dt.datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment


SORTS = {
    "newest": Sort("created_at", _moment),
    "costliest": Sort("cost_usd", Decimal),
    "slowest": Sort("took", _micros),
}


def search(
    runs: QuerySet[Run], query: Query, *, now: dt.datetime, limit: int = LIMIT, cursor: str = "", sort: str = "newest"
) -> Page:
    """`runs` are those the asker may see. Raises BadCursor."""
    order = SORTS[sort]
    found = matching.matching(runs, query.node, now)
    counted = found[: COUNTED + 1].count()
    page = found.annotate(took=matching.duration(now)).order_by(f"-{order.column}", "-id")
    if cursor:
        page = page.filter(_after(order, cursor))
    rows = list(page.select_related("agent", "agent_version", "owner")[: limit + 1])
    more, rows = len(rows) > limit, rows[:limit]
    matches = _matches(rows, query.words)
    return Page(
        hits=tuple(Hit(run=run, matches=matches.get(run.id, ())) for run in rows),
        total=min(counted, COUNTED),
        total_is_exact=counted <= COUNTED,
        next=_cursor(order, rows[-1]) if more else None,
    )


# --- paging ----------------------------------------------------------------------------------------------------------


def _cursor(order: Sort, run: Run) -> str:
    value = getattr(run, order.column)
    if isinstance(value, dt.timedelta):
        value = value // dt.timedelta(microseconds=1)
    text = value.isoformat() if isinstance(value, dt.datetime) else str(value)
    return base64.urlsafe_b64encode(json.dumps([text, str(run.id)]).encode()).decode().rstrip("=")


def _after(order: Sort, cursor: str) -> Q:
    try:
        raw, run_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        value, last = order.read(raw), uuid.UUID(run_id)
    except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError, InvalidOperation) as error:
        raise BadCursor("This page link is damaged. Start from the first page.") from error
    return Q(**{f"{order.column}__lt": value}) | Q(**{order.column: value, "id__lt": last})


# --- what matched ----------------------------------------------------------------------------------------------------


def _matches(runs: Sequence[Run], words: Sequence[str]) -> dict[uuid.UUID, tuple[Snippet, ...]]:
    """The steps of each run that hold most of the words, else the run's own text."""
    if not words or not runs:
        return {}
    found: dict[uuid.UUID, list[Snippet]] = {}
    for step in _best_steps(runs, words):
        shown = snippet(_texts(step), words, step.seq)
        if shown:
            found.setdefault(step.run_id, []).append(shown)
    for run in runs:
        own = snippet([("task", run.task), ("result", run.result), ("stop_detail", run.stop_detail)], words, None)
        if own and len(found.get(run.id, ())) < MATCHES_PER_RUN:
            found.setdefault(run.id, []).append(own)
    return {run_id: tuple(snippets) for run_id, snippets in found.items()}


def _best_steps(runs: Sequence[Run], words: Sequence[str]) -> list[Step]:
    """Up to MATCHES_PER_RUN steps of each run, those with most of the words first: one query, payloads included."""
    holds = [matching.in_step(word) for word in words]
    points: list[Any] = [Case(When(hold, then=1), default=0) for hold in holds]
    held = reduce(add, points)
    ranked = (
        matching.step_texts(Step.objects.filter(run__in=runs))
        .filter(reduce(or_, holds))
        .annotate(held=held)
        .annotate(place=Window(RowNumber(), partition_by=F("run_id"), order_by=[F("held").desc(), F("seq").asc()]))
        .filter(place__lte=Value(MATCHES_PER_RUN, output_field=IntegerField()))
    )
    return list(ranked.select_related("payload").order_by("run_id", "place"))


def _texts(step: Step) -> list[tuple[str, str]]:
    payload = getattr(step, "payload", None)
    texts = [("summary", step.summary), ("title", step.title), ("tool", step.tool)]
    if payload is None:
        return texts
    return [
        ("error", payload.error),
        ("output", plain_text(payload.output)),
        ("reasoning", payload.reasoning),
        ("input", plain_text(payload.input)),
        *texts,
    ]
