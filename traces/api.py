"""What `/traces` and `/costs` of the HTTP API answer, as plain values. Refuses with Invalid or QueryError."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from django.http import Http404
from django.utils import timezone
from pydantic import BaseModel, ConfigDict, Field

from accounts.access import Access, get
from runs import noting, presenters
from runs.errors import Invalid
from runs.models import Run
from traces import compare, costs, export, otel, sharing, why
from traces.aggregate import Group, UnknownField, aggregate
from traces.json_parts import COMPACT, Layout
from traces.limits import TookTooLong, bounded
from traces.models import Share
from traces.period import BadPeriod, Period, read_period
from traces.query import parse
from traces.scope import Scope
from traces.search import LIMIT, MAX_LIMIT, BadCursor, search
from traces.snippets import Snippet
from traces.vocabulary import ALIASES

LARGEST_SEQ = 2**31 - 1


class TraceSearch(BaseModel):
    q: str = ""
    limit: int = Field(LIMIT, ge=1, le=MAX_LIMIT)
    cursor: str = ""
    sort: Literal["newest", "costliest", "slowest", "lowest"] = "newest"


class TwoTraces(BaseModel):
    """Numbers (R-12) or ids."""

    left: str
    right: str


class TraceQuery(BaseModel):
    q: str = ""


class TraceAggregate(BaseModel):
    """`by` is one field, or two joined by a comma; the query may say it too, as `| by type,day`."""

    q: str = ""
    by: str | None = None


class NoteChange(BaseModel):
    """What the note says from then on: what is left out is not there. `score` is from 0 to 1."""

    model_config = ConfigDict(extra="forbid")

    text: str = ""
    score: float | None = None

    def said(self) -> noting.Said:
        return noting.Said(text=self.text, score=self.score)


class NoteIn(NoteChange):
    """`seq` is the step that it is about; without one it is about the run as a whole."""

    seq: int | None = Field(None, ge=1, le=LARGEST_SEQ)


class ShareIn(BaseModel):
    """For how many days the link opens the trace: 1, 7 or 30."""

    model_config = ConfigDict(extra="forbid")

    days: int


class CostQuery(BaseModel):
    """`from` and `to` are days, both included, or moments; the last 30 days unless told. `by` is task_type, agent,
    model, user, tool, day or week; or one of the first five with day or week behind a comma."""

    model_config = ConfigDict(populate_by_name=True)

    start: str = Field("", alias="from")
    end: str = Field("", alias="to")
    by: str = "task_type"
    format: Literal["json", "csv"] = "json"


def list_traces(access: Access, asked: TraceSearch) -> dict[str, Any]:
    now = timezone.localtime()
    query = parse(asked.q, now)
    if query.by:
        raise Invalid({"q": "A list has no groups: ask /traces/aggregate, or leave out what stands behind the |."})
    with _refusals():
        page = search(access, query, now=now, limit=asked.limit, cursor=asked.cursor, sort=asked.sort)
    runs = presenters.runs_json([hit.run for hit in page.hits])
    items = [
        {"run": run, "matches": [match_json(match) for match in hit.matches]}
        for run, hit in zip(runs, page.hits, strict=True)
    ]
    return {
        "items": items,
        "reading": query.reading,
        "approximate_total": page.total,
        "total_is_exact": page.total_is_exact,
        "partly_searched_steps": page.partly_searched,
        "next": page.next,
    }


def match_json(match: Snippet) -> dict[str, Any]:
    """`hits` are the positions of the words in `text`."""
    return {"seq": match.seq, "field": match.field, "text": match.text, "hits": [list(hit) for hit in match.hits]}


def trace(
    access: Access, run_id: uuid.UUID | str, shape: Literal["json", "otlp"] = "json", layout: Layout = COMPACT
) -> tuple[Run, Iterator[bytes]]:
    """The run, and the text of the whole trace in pieces, which are read from the database as they are asked for."""
    run = get(access, Run.objects.select_related("agent", "agent_version", "owner"), run_id)
    return run, otel.otlp(run, layout) if shape == "otlp" else export.trace_json(run, noting.of(access, run), layout)


def list_notes(access: Access, run_id: uuid.UUID | str) -> dict[str, Any]:
    """All there are: a run has at most a few hundred."""
    found = noting.of(access, get(access, Run, run_id))
    return {"items": [presenters.note_json(note) for note in found], "next": None}


def add_note(access: Access, run_id: uuid.UUID | str, asked: NoteIn) -> dict[str, Any]:
    return presenters.note_json(noting.add(access, run_id, asked.said(), seq=asked.seq))


def edit_note(access: Access, run_id: uuid.UUID | str, note_id: str, asked: NoteChange) -> dict[str, Any]:
    return presenters.note_json(noting.edit(access, run_id, note_id, asked.said()))


def list_shares(access: Access, run_id: uuid.UUID | str) -> dict[str, Any]:
    """Those that open the trace now, the first to end first; without their links, which exist nowhere."""
    found = sharing.active(access, get(access, Run, run_id))
    return {"items": [_share_json(share) for share in found], "next": None}


def share(access: Access, run_id: uuid.UUID | str, asked: ShareIn, url_of: Callable[[str], str]) -> dict[str, Any]:
    """`url_of` makes the link from its token."""
    made, token = sharing.create(access, run_id, str(asked.days))
    return {**_share_json(made), "url": url_of(token)}


def _share_json(share: Share) -> dict[str, Any]:
    return {
        "id": str(share.id),
        "trace_id": str(share.run_id),
        "created_by": share.created_by.username,
        "created_at": presenters.time(share.created_at),
        "expires_at": presenters.time(share.expires_at),
        "opened_at": presenters.time(share.opened_at),
    }


def compare_traces(access: Access, asked: TwoTraces) -> dict[str, Any]:
    runs = [compare.find_run(access, text) for text in (asked.left, asked.right)]
    left, right = runs
    if left is None or right is None:
        raise Http404("No such run.")
    found = compare.compare(access, left, right)
    return {
        "left": presenters.run_json(left),
        "right": presenters.run_json(right),
        "cost_change_usd": presenters.money(found.cost_change),
        "duration_change_ms": found.duration_change_ms,
        "first_divergence": found.first,
        "truncated": found.cut,
        "rows": [_row_json(row) for row in found.rows],
    }


def _row_json(row: compare.Row) -> dict[str, Any]:
    """`left` and `right` are step numbers; null where the other run has nothing beside it."""
    return {
        "left": row.left and row.left.seq,
        "right": row.right and row.right.seq,
        "state": row.state,
        "cost_change_usd": presenters.money(row.cost_change),
        "score_change": row.score_change,
        "reasoning_differs": row.reasoning is not None,
    }


def why_traces(access: Access, asked: TraceQuery) -> dict[str, Any]:
    """What sets the found runs apart, the surest first; shares are from 0 to 1."""
    now = timezone.localtime()
    query = parse(asked.q, now)
    with _refusals():
        found = why.why(access, query, Scope(access.team.id, now))
    return {
        "reading": query.reading,
        "found": found.found,
        "rest": found.rest,
        "reasons": [
            {"what": reason.title, "value": reason.value, "found": reason.found, "rest": reason.rest, "q": reason.query}
            for reason in found.reasons
        ],
    }


def aggregate_traces(access: Access, asked: TraceAggregate) -> dict[str, Any]:
    now = timezone.localtime()
    query = parse(asked.q, now)
    named = [name.strip() for name in asked.by.split(",")] if asked.by is not None else list(query.by or ("agent",))
    by = [ALIASES.get(name, name) for name in named]
    if query.by and by != list(query.by):
        raise Invalid({"by": f"The query says by {','.join(query.by)}, the parameter {','.join(named)}."})
    with _refusals():
        groups, cut = aggregate(access, query, by, now=now)
    found = [_group_json(group, named) for group in groups]
    return {"by": named, "reading": query.reading, "rows": found, "truncated": cut}


def _group_json(group: Group, named: Sequence[str]) -> dict[str, Any]:
    """With its keys under the names that were asked for, which may be aliases."""
    return {
        **dict(zip(named, group.keys.values(), strict=True)),
        "count": group.count,
        "cost": presenters.money(group.cost),
        "unpriced_runs": group.unpriced_runs,
        "cost_p50": presenters.money(group.cost_p50),
        "cost_p95": presenters.money(group.cost_p95),
        "duration_ms_p50": group.duration_ms_p50,
        "duration_ms_p95": group.duration_ms_p95,
    }


def cost_report(access: Access, asked: CostQuery) -> costs.Report:
    """Either form of the answer is made from it: `costs_json` or `export.costs_csv`."""
    try:
        period: Period = read_period(timezone.localtime(), start=asked.start, end=asked.end)
    except BadPeriod as error:
        raise Invalid({error.field: str(error)}) from error
    with _refusals():
        return costs.report(access, by=asked.by, start=period.start, end=period.end)


def costs_json(report: costs.Report) -> dict[str, Any]:
    return {
        "by": report.by,
        "from": _utc(report.start),
        "to": _utc(report.end),
        "rows": [export.row_json(row) for row in report.rows],
        "total": export.row_json(report.total),
        "completeness": {
            "model_calls": report.total.calls,
            "unpriced_steps": report.total.unpriced_steps,
            "summed_up_to": report.source.rolled_to and _utc(report.source.rolled_to),
            "hours_read_from_steps": report.source.stale_hours,
        },
    }


def _utc(moment: dt.datetime) -> str | None:
    return presenters.time(moment)


@contextmanager
def _refusals() -> Iterator[None]:
    """Bounded in time; what the caller can mend is refused at its parameter."""
    try:
        with bounded():
            yield
    except BadCursor as error:
        raise Invalid({"cursor": str(error)}) from error
    except (UnknownField, costs.UnknownBy) as error:
        raise Invalid({"by": str(error)}) from error
    except TookTooLong as error:
        raise Invalid({"q": str(error)}) from error
