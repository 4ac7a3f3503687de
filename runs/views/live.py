"""One run: its live page, what is behind a step, and what people do to it. Each POST also works without scripts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.access import Access, Right, get, rows
from accounts.http import HttpRequest
from runs import commands, live, presenters, step_rows
from runs import page as pages
from runs.errors import Conflict, Invalid
from runs.models import Run, Step

MODES = {"interactive": "Interactive", "batch": "Batch approvals", "dry_run": "Dry run"}
TOAST_S = 6
CHANGED = ["status", "actions", "dock", "waits", "notice"]


@require_safe
def page(request: HttpRequest, run_id: str) -> HttpResponse:
    run = pages.load(request.access, run_id)
    before = request.GET.get("before", "")
    return _page(request, run, before=int(before) if before.isdecimal() and len(before) < 10 else None)


@require_safe
@vary_on_headers("HX-Request")
def step(request: HttpRequest, run_id: str, seq: int) -> HttpResponse:
    run = get(request.access, Run, run_id)
    found = get(request.access, rows(request.access, Step).select_related("payload"), run=run, seq=seq)
    context = {
        "run": run,
        "step": found,
        "parts": step_rows.parts_of(found),
        "may_fork": request.access.may(Right.LAUNCH),
    }
    return render(request, "runs/_step_details.html" if request.htmx else "runs/step.html", context)


@require_POST
def pause(request: HttpRequest, run_id: str) -> HttpResponse:
    return _change(request, run_id, commands.pause)


@require_POST
def resume(request: HttpRequest, run_id: str) -> HttpResponse:
    return _change(request, run_id, commands.resume)


@require_POST
def cancel(request: HttpRequest, run_id: str) -> HttpResponse:
    return _change(request, run_id, commands.cancel)


@require_POST
def steer(request: HttpRequest, run_id: str) -> HttpResponse:
    run = pages.load(request.access, run_id, Right.LAUNCH)
    text = request.POST.get("text", "").replace("\r\n", "\n")
    try:
        commands.steer(request.access, run.id, text)
    except Invalid as invalid:
        return _page(request, run, status=422, steer_text=text, steer_error=invalid.errors["text"])
    except Conflict:
        run.refresh_from_db()
        return _page(request, run, status=409, steer_text=text)
    if request.htmx:
        return _answer(request, run, "Queued. The agent reads it before its next model call.", ["steer"])
    return _see(run)


# --- helpers ---------------------------------------------------------------------------------------------------------


def _change(request: HttpRequest, run_id: str, command: Callable[[Access, str], Run]) -> HttpResponse:
    """A change that comes too late says how the run stands now; it is no fault of the reader's."""
    run = pages.load(request.access, run_id, Right.LAUNCH)
    said = ""
    try:
        command(request.access, str(run.id))
    except Conflict as conflict:
        said = conflict.detail
    if request.htmx:
        return _answer(request, pages.load(request.access, run_id), said, CHANGED)
    if said:
        messages.warning(request, said)
    return _see(run)


def _see(run: Run) -> HttpResponse:
    return HttpResponseRedirect(reverse("runs:live", args=[run.id]), status=303)


def _answer(
    request: HttpRequest, run: Run, said: str, names: list[str], *, status: int = 200, **typed: str
) -> HttpResponse:
    """Regions for htmx, each to its place by id."""
    shown = pages.live_page(request.access, run)
    now = timezone.now()
    context = {
        "regions": [(name, mark_safe(pages.render_region(name, shown, **typed))) for name in names],  # noqa: S308
        "said": said,
        "server_now": now.isoformat(),
        "until": (now + dt.timedelta(seconds=TOAST_S)).isoformat(),
    }
    return render(request, "runs/_answer.html", context, status=status)


def _page(
    request: HttpRequest, run: Run, *, status: int = 200, before: int | None = None, **typed: str
) -> HttpResponse:
    if request.htmx and typed:
        return _answer(request, run, "", ["steer"], status=status, **typed)
    found = step_rows.newest_rows(run, before)
    context: dict[str, Any] = {
        "run": run,
        "page": pages.live_page(request.access, run),
        "agent_name": run.agent_version.definition.get("name", run.agent.slug),
        "mode": MODES.get(run.mode, run.mode),
        "elapsed_ms": presenters.duration_ms(run),
        "step_rows": found,
        "flight": None if before is not None else _flight(run, found),
        "after": found[-1].seq if found else 0,
        "before": before,
        "earlier": found[0].seq if found and found[0].seq > 1 else None,
        **typed,
    }
    return render(request, "runs/live.html", context, status=status)


def _flight(run: Run, found: list[step_rows.StepRow]) -> step_rows.FlightRow | None:
    if run.status != "running":
        return None
    return step_rows.flight_row(live.read_in_flight(run.id), found[-1].seq if found else 0)
