"""The page on which one decides across runs. Every write is an ordinary POST."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse, HttpResponseBadRequest
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from accounts.access import Right
from accounts.http import HttpRequest
from accounts.receipts import ChainBroken
from approvals import across, forms, paging, presenter, seen
from approvals.inbox import Line, Outcome, Result
from approvals.models import Verdict
from runs.engine.types import Risk


@require_GET
@vary_on_headers("HX-Request")
def page(request: HttpRequest) -> HttpResponse:
    try:
        return _page(request, request.GET)
    except paging.BadCursor as error:
        return HttpResponseBadRequest(str(error))


@require_POST
def decide(request: HttpRequest) -> HttpResponse:
    request.access.require(Right.DECIDE)
    verdict = Verdict.REJECT if request.POST.get("submit") == "reject" else Verdict.APPROVE
    try:
        lines = [_line(request, uuid.UUID(text), verdict) for text in request.POST.getlist("select")]
        versions = {
            # Rows that came later may show a newer version of the same batch: the oldest one is what all of them hold.
            uuid.UUID(name.removeprefix("version-")): min(map(int, request.POST.getlist(name)))
            for name in request.POST
            if name.startswith("version-")
        }
    except ValueError:
        return HttpResponseBadRequest("This form is not one that the page shows. Nothing was decided.")
    try:
        outcomes = across.decide(request.access, lines, versions) if lines else []
    except ChainBroken as broken:
        messages.error(request, str(broken))
        return _page(request, request.POST, status=503)
    if not lines:
        messages.warning(request, "Nothing is selected, so nothing was decided.")
    applied = [outcome for outcome in outcomes if outcome.result is Result.APPLIED]
    half = sum(outcome.counts_only for outcome in applied)
    word = "approved" if verdict is Verdict.APPROVE else "rejected"
    held = across.held(request.access, applied) if verdict is Verdict.APPROVE else None
    if len(applied) > half and not (held and len(held.actions) == len(outcomes)):
        messages.success(request, f"{len(applied) - half} of {len(outcomes)} {word}.")
    if half:
        messages.success(request, f"{half} of {len(outcomes)} waiting for a second person.")
    return _page(request, request.POST, outcomes=outcomes, held=held)


@require_POST
def undo(request: HttpRequest) -> HttpResponse:
    """Takes back what was approved together, as far as it has not begun; says of the rest why not."""
    request.access.require(Right.DECIDE)
    try:
        taken = forms.read_taken(request.POST)
    except ValueError:
        return HttpResponseBadRequest("This form is not one that the page shows. Nothing was changed.")
    outcomes = across.take_back(request.access, taken, channel="web")
    back = sum(outcome.result is Result.APPLIED for outcome in outcomes)
    if back:
        words = "1 approval was" if back == 1 else f"{back} approvals were"
        messages.success(request, f"{words} taken back. Nothing of it has run.")
    elif not outcomes:
        messages.warning(request, "There was nothing to take back.")
    return _page(request, request.POST, outcomes=outcomes, lead="Not taken back:")


def _line(request: HttpRequest, action: uuid.UUID, verdict: Verdict) -> Line:
    note = request.POST.get("note", "").replace("\r\n", "\n") if verdict is Verdict.REJECT else ""
    reason = request.POST.get("reason", "") if verdict is Verdict.REJECT else ""
    return Line(
        action=action, digest=request.POST.get(f"digest-{action}", ""), verdict=verdict, note=note, reason=reason
    )


def _page(
    request: HttpRequest,
    asked: Any,
    outcomes: list[Outcome] | None = None,
    held: across.Held | None = None,
    lead: str = "Not decided:",
    status: int = 200,
) -> HttpResponse:
    wanted = across.read(asked)
    found = across.waiting(request.access, wanted)
    total = found.count()
    cursor = request.GET.get("cursor", "")
    read_with = found.prefetch_related("decisions__actor", "supersedes__decisions__actor")
    actions, following = paging.page(read_with, "pending", across.PAGE, cursor)
    views = [presenter.view_action(action, action.run, request.access) for action in actions]
    read = seen.seen_by(request.access, [view.id for view in views if view.must_see])
    said = outcomes or []
    refused = [outcome for outcome in said if outcome.result is not Result.APPLIED]
    shown = [
        {
            "action": view,
            "run": action.run,
            "batch": action.batch,
            "unread": view.must_see and not _in(view, read),
            "selected": status != 200 and str(view.id) in request.POST.getlist("select"),
        }
        for action, view in zip(actions, views, strict=True)
    ]
    context = {
        "rows": shown,
        "total": total,
        "is_further": bool(cursor),
        "first_query": f"?{urlencode(_set(wanted))}",
        "left": paging.after(found, "pending", following).count() if following else 0,
        "more_url": f"{reverse('approvals:across')}?{urlencode({**_set(wanted), 'cursor': following})}",
        "wanted": wanted,
        "filters": _set(wanted),
        "errors": wanted.errors,
        "agents": across.agents(request.access),
        "risks": list(Risk),
        "types": across.TYPES,
        "held": held,
        "lead": lead,
        "refused": Counter(outcome.detail for outcome in refused).items(),
        "reasons": presenter.reasons(),
        "may_decide": request.access.may(Right.DECIDE),
        "typed": request.POST if status != 200 else None,
    }
    part = bool(cursor and request.htmx and not request.htmx.history_restore_request)
    return render(request, f"approvals/{'_across_rows' if part else 'across'}.html", context, status=status)


def _set(wanted: across.Wanted) -> dict[str, str]:
    return {name: value for name, value in asdict(wanted).items() if value}


def _in(view: presenter.ActionView, read: set[seen.Sight]) -> bool:
    return (view.id, view.digest) in read
