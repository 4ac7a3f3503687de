"""Search over the journal, behind one query language: a page of runs newest first, with the text that matched."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import reduce
from heapq import nsmallest
from operator import or_
from typing import Any

from django.db.models import Case, Q, QuerySet, Subquery, Value, When
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Coalesce

from accounts.access import Access, rows
from runs import presenters
from runs.asked import Note
from runs.engine.words import plain_text
from runs.models import Run, SearchDocument, StepPayload
from traces import matching, step_matching, text_index
from traces.scope import Scope
from traces.snippets import Snippet, snippet
from traces.tree import And, Node, Query, Term, Text
from traces.tree import Sequence as Steps
from traces.vocabulary import TIMES

LIMIT = 50
MAX_LIMIT = 200
COUNTED = 1_000
SAMPLE = 300
"""Newest runs of the asked time that stand for all of it where not all can be looked at."""
MATCHES_PER_RUN = 2
NO_SCORE = 2.0
"""Above every score: in the order of the lowest, runs that nobody judged come last."""


class BadCursor(ValueError):
    """A cursor that this search did not make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """`run` as `presenters.named` reads it, with `agent_name` of its version, which may be empty."""

    run: Run
    matches: tuple[Snippet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`total` is exact up to COUNTED; from there on it is COUNTED or an estimate, and `total_is_exact` is False.
    `partly_searched` counts the steps, up to COUNTED, whose text is longer than what was looked through for the words.
    `only_newest`: the order is that of the found runs among so many newest of all, for all can't be looked at."""

    hits: tuple[Hit, ...]
    total: int
    total_is_exact: bool
    total_is_estimate: bool
    next: str | None
    partly_searched: int
    only_newest: int | None = None


@dataclass(frozen=True, slots=True)
class Sort:
    """A column that decides the order, largest first unless `rising`, and how its value is read from a cursor."""

    column: str
    read: Callable[[Any], Any]
    rising: bool = False

    @property
    def order(self) -> str:
        return self.column if self.rising else f"-{self.column}"


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
    "lowest": Sort("lowest", float, rising=True),
}


def search(
    access: Access, query: Query, *, now: dt.datetime, limit: int = LIMIT, cursor: str = "", sort: str = "newest"
) -> Page:
    """A page of the asker's team's runs. Raises BadCursor."""
    order = SORTS[sort]
    scope = Scope(access.team.id, now)
    runs = rows(access, Run)
    found = matching.matching(runs, query.node, scope)
    lowest = Coalesce("lowest_score", Value(NO_SCORE))
    page = found.annotate(took=matching.duration(now), lowest=lowest).order_by(order.order, "-id")
    around = window(runs, query.node)
    sample = sample_of(around) if scope.walks and sort != "newest" else None
    if sample is not None:
        page = page.filter(created_at__gte=sample.edge)
    if cursor:
        page = page.filter(_after(order, cursor))
    name = KeyTextTransform("name", "agent_version__definition")
    listed = list(presenters.named(page).annotate(agent_name=name)[: limit + 1])
    more, listed = len(listed) > limit, listed[:limit]
    matches = _matches(listed, query.texts)
    for run_id, noted in _in_notes(listed, query.note_texts).items():
        matches[run_id] = (*noted, *matches.get(run_id, ()))[:MATCHES_PER_RUN]
    if cursor or more:
        newest = () if cursor or sort != "newest" else listed
        total = _total(around, found, scope, newest, at_least=len(listed) + more)
    else:
        total = Total(len(listed), exact=True)
    return Page(
        hits=tuple(Hit(run=run, matches=matches.get(run.id, ())) for run in listed),
        total=total.count,
        total_is_exact=total.exact,
        total_is_estimate=total.estimate,
        next=_cursor(order, listed[-1]) if more else None,
        partly_searched=_partly_searched(scope) if query.texts else 0,
        only_newest=None if sample is None else SAMPLE,
    )


def _partly_searched(scope: Scope) -> int:
    return SearchDocument.objects.filter(team=scope.team_id, cut=True)[:COUNTED].count()


# --- how many --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Total:
    count: int
    exact: bool
    estimate: bool = False


def _total(around: QuerySet[Run], found: QuerySet[Run], scope: Scope, newest: Sequence[Run], at_least: int) -> Total:
    """Counted up to COUNTED. Where that would mean looking at run after run, only the newest SAMPLE of the time are
    looked at, and what they hold is taken to be the share of all. `newest` are the newest found, as far as known."""
    sample = sample_of(around) if scope.walks else None
    if sample is None:
        counted = found[: COUNTED + 1].count()
        return Total(min(counted, COUNTED), exact=counted <= COUNTED)
    sampled = sum(run.created_at >= sample.edge for run in newest)
    if sampled == len(newest):
        rest = found.filter(created_at__gte=sample.edge)
        sampled += (rest.filter(created_at__lt=newest[-1].created_at) if newest else rest).count()
    return Total(max(_rounded(sampled * sample.of / SAMPLE), at_least), exact=False, estimate=True)


def window(runs: QuerySet[Run], node: Node | None) -> QuerySet[Run]:
    """Those of the time that the query is about, as far as it says one: what a sample is taken of. A step may have
    begun long after its run, so this is where most matches are, not where all are."""
    conditions = node.nodes if isinstance(node, And) else (node,)
    times = [each for each in conditions if isinstance(each, Term) and each.field.name in TIMES and each.values]
    for each in conditions:
        if isinstance(each, Steps):
            times += step_matching.began(each.steps[0])
    return runs.filter(*(step_matching.moment(term, "created_at") for term in times))


@dataclass(frozen=True, slots=True)
class Sample:
    """`edge` is when the oldest of it was made; it stands for `of` runs."""

    edge: dt.datetime
    of: int


def sample_of(runs: QuerySet[Run]) -> Sample | None:
    """The newest SAMPLE; None when there are no more than those. In one statement."""
    newest, oldest = runs.order_by("-created_at"), runs.order_by("created_at")
    asked = newest.annotate(
        edge=Subquery(newest.values("created_at")[SAMPLE - 1 : SAMPLE]), least=Subquery(oldest.values("number")[:1])
    ).values_list("edge", "number", "least")
    edge, greatest, least = next(iter(asked[:1]), (None, 0, 0))
    # Numbers are given in order, so the first and the last tell how many there are without counting.
    return None if edge is None else Sample(edge, greatest - least + 1)


def _rounded(value: float) -> int:
    """To two digits: an estimate must not look like a count."""
    return int(float(f"{value:.2g}"))


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
    beyond = "gt" if order.rising else "lt"
    return Q(**{f"{order.column}__{beyond}": value}) | Q(**{order.column: value, "id__lt": last})


# --- what matched ----------------------------------------------------------------------------------------------------


def _matches(runs: Sequence[Run], texts: Sequence[Text]) -> dict[uuid.UUID, tuple[Snippet, ...]]:
    """The steps of each run that hold most of the texts, else the run's own task and result."""
    if not texts or not runs:
        return {}
    found: dict[uuid.UUID, list[Snippet]] = {}
    best = _best_steps(runs, texts)
    columns = ("step_id", "error", "output", "reasoning", "input", "step__summary", "step__title", "step__tool")
    sources = {row[0]: row[1:] for row in StepPayload.objects.filter(step__in=list(best)).values_list(*columns)}
    for step_id, (run_id, seq) in best.items():
        shown = snippet(_sources(sources[step_id]), texts, seq) if step_id in sources else None
        if shown:
            found.setdefault(run_id, []).append(shown)
    for run in runs:
        if len(found.get(run.id, ())) < MATCHES_PER_RUN:
            own = snippet([("task", run.task), ("result", run.result), ("stop_detail", run.stop_detail)], texts, None)
            if own:
                found.setdefault(run.id, []).append(own)
    return {run_id: tuple(snippets) for run_id, snippets in found.items()}


def _in_notes(runs: Sequence[Run], texts: Sequence[Text]) -> dict[uuid.UUID, list[Snippet]]:
    """The notes of people that hold the texts."""
    found: dict[uuid.UUID, list[Snippet]] = {}
    if not texts or not runs:
        return found
    holds = reduce(or_, (text_index.holds(text, ("words",)) for text in texts))
    notes = Note.objects.filter(holds, run__in=[run.id for run in runs]).order_by("created_at", "id")
    for run_id, seq, text in notes.values_list("run_id", "step__seq", "text"):
        shown = snippet([("note", text)], texts, seq)
        if shown:
            found.setdefault(run_id, []).append(shown)
    return found


def _best_steps(runs: Sequence[Run], texts: Sequence[Text]) -> dict[uuid.UUID, tuple[uuid.UUID, int]]:
    """Up to MATCHES_PER_RUN steps of each run, those with most of the texts first: step -> (run, number)."""
    holds = {f"held_{index}": text_index.holds(text) for index, text in enumerate(texts)}
    marks = {name: Case(When(hold, then=1), default=0) for name, hold in holds.items()}
    documents = (
        SearchDocument.objects.filter(run__in=[run.id for run in runs], seq__gt=0)
        .filter(reduce(or_, holds.values()))
        .values_list("run_id", "seq", "step_id", *(marks.values() if len(texts) > 1 else ()))
    )
    of_run: dict[uuid.UUID, list[tuple[int, int, uuid.UUID]]] = {}
    for run_id, seq, step_id, *held in documents:
        of_run.setdefault(run_id, []).append((-sum(held), seq, step_id))
    return {
        step_id: (run_id, seq)
        for run_id, steps in of_run.items()
        for _, seq, step_id in nsmallest(MATCHES_PER_RUN, steps)
    }


def _sources(row: tuple[Any, ...]) -> Iterator[tuple[str, Callable[[], str]]]:
    error, output, reasoning, given, summary, title, tool = row
    yield "error", lambda: error
    yield "output", lambda: plain_text(output)
    yield "reasoning", lambda: reasoning
    yield "input", lambda: plain_text(given)
    yield from (("summary", lambda: summary), ("title", lambda: title), ("tool", lambda: tool))
