"""What the search page shows: results, facets and histogram of one query, or why it can't be read."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from django.utils import timezone

from accounts.access import Access, Right, rows
from runs.models import Run
from traces import matching, saved
from traces.aggregate import aggregate
from traces.editing import of_group
from traces.found_steps import asks_about_cache, found_steps
from traces.overview import SERIES, overview
from traces.query import parse
from traces.scope import Scope
from traces.search import COUNTED, search
from traces.tree import Node, Not, Query, QueryError, Sequence, Term, Word
from traces.vocabulary import FIELDS, STEP_FIELDS

CHIPS = ("status:", "stop:", "score:<", "user:", "risk:critical", "has:rejection")
SORT_LABELS = {"newest": "Newest", "costliest": "Costliest", "slowest": "Slowest", "lowest": "Lowest score"}
LEGEND = {
    "completed": {"label": "Completed", "fill": "fill-completed"},
    "stopped": {"label": "Stopped", "fill": "fill-stopped"},
    "failed": {"label": "Failed", "fill": "fill-failed"},
    "open": {"label": "Not ended", "fill": "fill-rest"},
}
MOST_TRIED = 8


def helpers(access: Access) -> dict[str, Any]:
    """What the box needs whatever is in it."""
    return {
        "saved": list(saved.seen(access)),
        "me": access.user,
        "may_share": access.may(Right.LAUNCH),
        "may_manage": access.may(Right.MANAGE),
        "chips": CHIPS,
        "sorts": SORT_LABELS,
        "fills": [LEGEND[name]["fill"] for name in SERIES],
        "fields": [{"name": field.name, "hint": field.hint, "choices": field.choices} for field in FIELDS.values()],
        "step_fields": [
            {"name": field.name, "hint": field.hint, "choices": field.choices} for field in STEP_FIELDS.values()
        ],
    }


def page(access: Access, query: Query, sort: str, cursor: str) -> dict[str, Any]:
    """Raises BadCursor."""
    now = timezone.localtime()
    found = search(access, query, now=now, cursor=cursor, sort=sort)
    context: dict[str, Any] = {
        "query": query,
        "found": found,
        "asked_at": now,
        "next_url": _url(query.text, sort, found.next) if found.next else "",
    }
    if cursor:
        return context
    if query.by:
        groups, context["groups_cut"] = aggregate(access, query, query.by, now=now)
        context["groups"] = [{"group": group, "query": of_group(query, group.keys)} for group in groups]
    seen = overview(access, query, now=now)
    counts = [bucket.counts for bucket in seen.histogram.buckets] if seen.histogram else []
    used = [name for index, name in enumerate(SERIES) if any(tally[index] for tally in counts)]
    return {
        **context,
        "overview": seen,
        "steps": found_steps(access, query, Scope(access.team.id, now)) if found.total else None,
        "steps_cached": asks_about_cache(query),
        "legend": [LEGEND[name] for name in used],
        "drop": _drop(access, query) if not found.total and query.node else None,
    }


def _url(text: str, sort: str, cursor: str) -> str:
    given = {"q": text, "sort": "" if sort == "newest" else sort, "cursor": cursor}
    return "?" + urlencode({name: value for name, value in given.items() if value})


def explained(text: str, error: QueryError) -> dict[str, Any]:
    """The query in three pieces, the middle one being what can't be read."""
    end = max(error.end, error.position + 1)
    return {
        "message": error.message,
        "before": text[: error.position],
        "at": text[error.position : end] or " ",
        "after": text[end:],
        "fixed": error.fixed(text),
    }


# --- an empty result -------------------------------------------------------------------------------------------------


def _drop(access: Access, query: Query) -> dict[str, Any] | None:
    """The condition whose removal brings back most runs: {text, query, count}."""
    best: dict[str, Any] | None = None
    scope = Scope(access.team.id, timezone.localtime())
    for node in query.conditions[:MOST_TRIED]:
        span = _span(node, query.text)
        if span is None:
            continue
        rest = " ".join((query.text[: span[0]] + query.text[span[1] :]).split(" ")).strip()
        try:
            found = matching.matching(rows(access, Run), parse(rest, scope.now).node, scope)
        except QueryError:
            continue
        count = found[: COUNTED + 1].count()
        if count and (best is None or count > best["count"]):
            best = {"text": query.text[span[0] : span[1]], "query": rest, "count": count}
    return best


def _span(node: Node, text: str) -> tuple[int, int] | None:
    if isinstance(node, Word | Term | Sequence):
        return node.start, node.end
    if isinstance(node, Not) and isinstance(node.node, Word | Term | Sequence):
        lead = re.search(r"(-|NOT\s+)$", text[: node.node.start])
        return (lead.start(), node.node.end) if lead else None
    return None
