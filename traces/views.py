"""Search, trace and costs. All are GETs that work without scripts; htmx asks for the part of a page that changes."""

from __future__ import annotations

import time
import uuid
from typing import Any

from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.http import HttpRequest
from traces import api, cost_page, costs, export, search_page, trace_page
from traces.json_parts import READABLE
from traces.limits import TookTooLong, bounded
from traces.period import RANGES, BadPeriod, Period, read_period
from traces.query import parse
from traces.search import SORTS, BadCursor
from traces.tree import QueryError


@require_safe
@vary_on_headers("HX-Request")
def search(request: HttpRequest) -> HttpResponse:
    began = time.perf_counter()
    text = request.GET.get("q", "")
    sort = request.GET.get("sort", "")
    sort = sort if sort in SORTS else "newest"
    context: dict[str, Any] = {"q": text, "sort": sort, **search_page.helpers(request.access)}
    status = 200
    try:
        query = parse(text, timezone.localtime())
        with bounded():
            context |= search_page.page(request.access, query, sort, request.GET.get("cursor", ""))
    except QueryError as error:
        context["error"] = search_page.explained(text, error)
        status = 422
    except (TookTooLong, BadCursor) as error:
        context["refusal"] = str(error)
        status = 422
    context["took_ms"] = round((time.perf_counter() - began) * 1000)
    part = "more" if "cursor" in request.GET else "search"
    template = f"traces/_{part}.html" if asks_for_part(request) else "traces/search.html"
    return render(request, template, context, status=status)


@require_safe
def trace(request: HttpRequest, run_id: uuid.UUID) -> HttpResponse:
    context = trace_page.page(request.access, run_id, seq=None, **page_of(request))
    return render(request, "traces/trace.html", context)


def page_of(request: HttpRequest) -> dict[str, Any]:
    """What an address asks of the trace page, as `trace_page.page` takes it."""
    first = request.GET.get("first", "")
    return {
        "fold": _fold(request),
        "whole": request.GET.get("whole", ""),
        "find": request.GET.get("find", ""),
        "all_notes": request.GET.get("notes") == "all",
        "first": int(first) if first.isascii() and first.isdigit() and len(first) < 9 else None,
    }


@require_safe
def trace_rows(request: HttpRequest, run_id: uuid.UUID) -> HttpResponse:
    """More rows of a long waterfall, from `first` to before `end`."""
    return render(request, "traces/_rows.html", trace_page.more(request.access, run_id, **window_of(request)))


def window_of(request: HttpRequest) -> dict[str, Any]:
    """As `trace_page.more` takes it."""
    try:
        first, end = (int(request.GET.get(name, "")) for name in ("first", "end"))
    except ValueError as error:
        raise Http404("No such rows.") from error
    return {"fold": _fold(request), "first": first, "end": end, "up": "up" in request.GET}


@require_safe
@vary_on_headers("HX-Request")
def step(request: HttpRequest, run_id: uuid.UUID, seq: int) -> HttpResponse:
    """The detail pane alone for htmx; without scripts the whole page with this step open."""
    if asks_for_part(request):
        context = trace_page.pane(request.access, run_id, seq, whole=request.GET.get("whole", ""))
        template = "traces/_detail.html"
    else:
        context = trace_page.page(request.access, run_id, seq=seq, **page_of(request))
        template = "traces/trace.html"
    if context is None:
        raise Http404("This run has no such step.")
    return render(request, template, context)


@require_safe
def trace_json(request: HttpRequest, run_id: uuid.UUID) -> HttpResponseBase:
    otlp = request.GET.get("format") == "otlp"
    run, pieces = api.trace(request.access, run_id, "otlp" if otlp else "json", READABLE)
    name = f"trace-{run.number}{'-otlp' if otlp else ''}.json"
    return StreamingHttpResponse(pieces, content_type="application/json", headers=_attached(name))


@require_safe
def costs_page(request: HttpRequest) -> HttpResponse:
    by = request.GET.get("by", "agent")
    by = by if by in cost_page.TABS else "agent"
    now = timezone.localtime()
    problem = ""
    try:
        period = _period(request)
    except BadPeriod as error:
        period, problem = read_period(now), str(error)
    context: dict[str, Any] = {
        "ranges": RANGES,
        "tabs": cost_page.TABS,
        "by": by,
        "problem": problem,
        "given": {"from": request.GET.get("from", ""), "to": request.GET.get("to", "")},
    }
    try:
        with bounded():
            context |= cost_page.page(request.access, period, by, now=now)
    except TookTooLong as error:
        context |= {"refusal": str(error), "period": period}
    return render(request, "traces/costs.html", context)


@require_safe
def costs_csv(request: HttpRequest) -> HttpResponse:
    by = request.GET.get("by", "agent")
    try:
        period = _period(request)
        with bounded():
            report = costs.report(request.access, by=by, start=period.start, end=period.end)
    except (BadPeriod, costs.UnknownBy, TookTooLong) as error:
        return HttpResponse(str(error), status=422, content_type="text/plain; charset=utf-8")
    name = f"costs-{by}-{period.start.date()}-{period.last}.csv"
    return HttpResponse(export.costs_csv(report), content_type="text/csv; charset=utf-8", headers=_attached(name))


def _period(request: HttpRequest) -> Period:
    """Dates given beside a named range belong to the custom one."""
    name = request.GET.get("range", "")
    custom = name in ("", "custom")
    start, end = (request.GET.get(field, "") if custom else "" for field in ("from", "to"))
    return read_period(timezone.localtime(), name=name, start=start, end=end)


def asks_for_part(request: HttpRequest) -> bool:
    """The way back in the history asks for the whole page."""
    return bool(request.htmx) and not request.htmx.history_restore_request


def _fold(request: HttpRequest) -> bool:
    return request.GET.get("fold") != "off"


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
