"""What the search page shows: results, facets and histogram of one query, or why it can't be read."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.utils import timezone

from runs.models import Run
from traces import matching
from traces.fields import FIELDS, Type
from traces.overview import SERIES, overview
from traces.query import Query, QueryError, parse
from traces.search import search
from traces.tree import And, Node, Not, Term, Word

CHIPS = ("status:", "stop:", "score:<", "user:", "risk:critical", "has:rejection")
SORT_LABELS = {"newest": "Newest", "costliest": "Costliest", "slowest": "Slowest"}
LEGEND = {
    "completed": {"label": "Completed", "fill": "fill-completed"},
    "stopped": {"label": "Stopped", "fill": "fill-stopped"},
    "failed": {"label": "Failed", "fill": "fill-failed"},
    "open": {"label": "Not ended", "fill": "fill-rest"},
}
MOST_TRIED = 8


def helpers() -> dict[str, Any]:
    """What the box needs whatever is in it."""
    return {
        "chips": CHIPS,
        "sorts": SORT_LABELS,
        "fills": [LEGEND[name]["fill"] for name in SERIES],
        "fields": [
            {"name": field.name, "hint": field.hint, "choices": field.choices}
            for field in FIELDS.values()
            if field.type != Type.TIME or field.name == "since"
        ],
    }


def page(runs: QuerySet[Run], query: Query, sort: str, cursor: str) -> dict[str, Any]:
    """Raises BadCursor."""
    now = timezone.localtime()
    found = search(runs, query, now=now, cursor=cursor, sort=sort)
    context: dict[str, Any] = {
        "query": query,
        "found": found,
        "next_url": _url(query.text, sort, found.next) if found.next else "",
    }
    if cursor:
        return context
    seen = overview(runs, query, now=now)
    counts = [bucket.counts for bucket in seen.histogram.buckets] if seen.histogram else []
    used = [name for index, name in enumerate(SERIES) if any(tally[index] for tally in counts)]
    return {
        **context,
        "overview": seen,
        "legend": [LEGEND[name] for name in used],
        "drop": _drop(runs, query) if not found.total and query.node else None,
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


def _drop(runs: QuerySet[Run], query: Query) -> dict[str, Any] | None:
    """The condition whose removal brings back most runs: {text, query, count}."""
    nodes = query.node.nodes if isinstance(query.node, And) else (query.node,)
    best: dict[str, Any] | None = None
    now = timezone.localtime()
    for node in nodes[:MOST_TRIED]:
        span = _span(node, query.text) if node else None
        if span is None:
            continue
        rest = " ".join((query.text[: span[0]] + query.text[span[1] :]).split(" ")).strip()
        try:
            count = matching.matching(runs, parse(rest, now).node, now).count()
        except QueryError:
            continue
        if count and (best is None or count > best["count"]):
            best = {"text": query.text[span[0] : span[1]], "query": rest, "count": count}
    return best


def _span(node: Node, text: str) -> tuple[int, int] | None:
    if isinstance(node, Word | Term):
        return node.start, node.end
    if isinstance(node, Not) and isinstance(node.node, Word | Term):
        lead = re.search(r"(-|NOT\s+)$", text[: node.node.start])
        return (lead.start(), node.node.end) if lead else None
    return None
