"""What stands round the search page: saved searches, values to complete with, news, two runs compared, "why these?"."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_POST, require_safe

from accounts.http import HttpRequest
from runs.errors import Invalid
from traces import names, news, saved, search_page
from traces.compare import PLAIN, compare, find_run
from traces.limits import TookTooLong, bounded
from traces.query import parse
from traces.scope import Scope
from traces.tree import QueryError
from traces.why import why


@require_safe
def values(request: HttpRequest) -> HttpResponse:
    """Values that occur in the team's runs, by field, for the query box."""
    with bounded():
        return JsonResponse(names.to_complete(request.access.team.id))


@require_safe
def new(request: HttpRequest) -> HttpResponse:
    """The pill that says how many runs have come since; 286 tells htmx to stop asking."""
    since = parse_datetime(request.GET.get("since", "").replace(" ", "+"))
    text = request.GET.get("q", "")
    if since is None or since.tzinfo is None:
        return HttpResponse(status=286)
    now = timezone.localtime()
    try:
        with bounded():
            count, more = news.newer(request.access, parse(text, now), since, now)
    except (QueryError, TookTooLong):
        return HttpResponse(status=286)
    context = {"count": count, "more": more, "q": text, "since": since}
    return render(request, "traces/_new.html", context)


@require_POST
def save(request: HttpRequest) -> HttpResponse:
    """Back to the search, which says what was saved, or what is wrong."""
    text = request.POST.get("q", "")
    try:
        saved.save(
            request.access, name=request.POST.get("name", ""), query=text, shared=request.POST.get("shared") == "1"
        )
    except QueryError as error:
        return _search_again(request, text, {"error": search_page.explained(text, error)})
    except Invalid as error:
        return _search_again(request, text, {"save_problem": str(error), "save_name": request.POST.get("name", "")})
    return HttpResponseRedirect(_search_url(text))


def _search_again(request: HttpRequest, text: str, context: dict[str, Any]) -> HttpResponse:
    helpers = search_page.helpers(request.access)
    return render(request, "traces/search.html", {"q": text, "sort": "newest", **helpers, **context}, status=422)


@require_POST
def delete(request: HttpRequest, saved_id: uuid.UUID) -> HttpResponse:
    saved.delete(request.access, saved_id)
    return HttpResponseRedirect(_search_url(request.POST.get("q", "")))


def _search_url(text: str) -> str:
    return reverse("traces:search") + (f"?{urlencode({'q': text})}" if text else "")


@require_safe
def why_these(request: HttpRequest) -> HttpResponse:
    text = request.GET.get("q", "")
    context: dict[str, Any] = {"q": text}
    now = timezone.localtime()
    try:
        query = parse(text, now)
        with bounded():
            found = why(request.access, query, Scope(request.access.team.id, now))
        context |= {"why": found, "query": query}
    except QueryError as error:
        context["refusal"] = error.message
    except TookTooLong as error:
        context["refusal"] = str(error)
    template = "traces/_why.html" if request.htmx else "traces/why.html"
    return render(request, template, context, status=422 if "refusal" in context else 200)


@require_safe
def compare_runs(request: HttpRequest) -> HttpResponse:
    """`?run=R-1&run=R-2`; with fewer it asks for them."""
    asked = [text for text in request.GET.getlist("run") if text.strip()][:2]
    found = [find_run(request.access, text) for text in asked]
    missing = [text for text, run in zip(asked, found, strict=True) if run is None]
    named = [run.short_id if run else text for text, run in zip(asked, found, strict=True)]
    context: dict[str, Any] = {"asked": [*named, "", ""][:2], "missing": missing, "plain": PLAIN}
    left, right = [*found, None, None][:2]
    if left is not None and right is not None:
        context["comparison"] = compare(request.access, left, right)
    return render(request, "traces/compare.html", context, status=404 if missing else 200)
