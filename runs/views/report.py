"""What a dry run would have done, and carrying it out. Looking changes nothing."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import Http404, HttpResponse, HttpResponseBadRequest, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from accounts.access import Right
from accounts.http import HttpRequest
from runs import executing, report
from runs import page as pages
from runs.engine.types import Mode
from runs.errors import Conflict
from runs.executing import Pick, Picked
from runs.models import Run


@require_safe
def page(request: HttpRequest, run_id: str) -> HttpResponse:
    run = _load(request, run_id)
    shown = report.build(request.access, run)
    context = {"run": run, "report": shown, "again_s": report.seconds_until_next_look(shown)}
    return render(request, "runs/report.html", context)


@require_safe
def state(request: HttpRequest, run_id: str) -> HttpResponse:
    """For htmx, each minute and more often while it works: where each action stands now."""
    run = _load(request, run_id)
    shown = report.build(request.access, run)
    context = {"run": run, "report": shown, "again_s": report.seconds_until_next_look(shown)}
    return render(request, "runs/_report_state.html", context)


@require_POST
def execute(request: HttpRequest, run_id: str) -> HttpResponse:
    run = _load(request, run_id, Right.LAUNCH)
    try:
        chosen = [uuid.UUID(text) for text in request.POST.getlist("select")]
    except ValueError:
        return HttpResponseBadRequest("This form is not one that the page shows. Nothing was carried out.")
    picks = [Pick(action=action, digest=request.POST.get(f"digest-{action}", "")) for action in chosen]
    if not picks:
        messages.warning(request, "Nothing is selected, so nothing is carried out.")
        return _back(run)
    try:
        outcomes = executing.execute(request.access, run.id, picks)
    except Conflict as conflict:
        messages.warning(request, conflict.detail)
        return _back(run)
    run.refresh_from_db(fields=["due_at"])
    if run.due_at and any(outcome.outcome == "applied" for outcome in outcomes):
        _say_chosen(request, outcomes)
    else:
        _tell(request, outcomes)
    return _back(run)


@require_POST
def take_back(request: HttpRequest, run_id: str) -> HttpResponse:
    """The last choice, before it has begun."""
    run = _load(request, run_id, Right.LAUNCH)
    try:
        number = executing.take_back(request.access, run.id)
    except Conflict as conflict:
        messages.warning(request, conflict.detail)
    else:
        words = "1 action was" if number == 1 else f"{number} actions were"
        messages.success(request, f"{words} taken back. Nothing has run.")
    return _back(run)


@require_POST
def plan_again(request: HttpRequest, run_id: str) -> HttpResponse:
    run = _load(request, run_id, Right.LAUNCH)
    try:
        wanted = [uuid.UUID(text) for text in request.POST.getlist("action")]
        outcomes = executing.plan_again(request.access, run.id, wanted)
    except ValueError:
        return HttpResponseBadRequest("This form is not one that the page shows. Nothing was planned.")
    except Conflict as conflict:
        messages.warning(request, conflict.detail)
        return _back(run)
    done = sum(outcome.outcome == "applied" for outcome in outcomes)
    if done:
        messages.success(request, f"{done} planned again. Read what would happen now.")
    _warn(request, outcomes)
    return _back(run)


def _say_chosen(request: HttpRequest, outcomes: list[Picked]) -> None:
    number = sum(outcome.outcome == "applied" for outcome in outcomes)
    messages.success(request, f"{number} chosen. Until it begins you can take it back.")
    _warn(request, outcomes)


def _tell(request: HttpRequest, outcomes: list[Picked]) -> None:
    applied = [outcome for outcome in outcomes if outcome.outcome == "applied"]
    inbox = sum(outcome.detail.startswith("Sent") for outcome in applied)
    terms = [f"{len(applied) - inbox} carried out now" if len(applied) - inbox else "", f"{inbox} sent to the inbox"]
    if applied:
        messages.success(request, f"{', '.join(term for term in (terms if inbox else terms[:1]) if term)}.")
    _warn(request, outcomes)


def _warn(request: HttpRequest, outcomes: list[Picked]) -> None:
    for outcome in outcomes:
        if outcome.outcome != "applied":
            messages.warning(request, f"Not carried out: {outcome.detail}")


def _load(request: HttpRequest, run_id: str, right: Right = Right.VIEW) -> Run:
    run = pages.load(request.access, run_id, right)
    if run.mode != Mode.DRY_RUN:
        raise Http404("Only a dry run has a report.")
    return run


def _back(run: Run) -> HttpResponse:
    return HttpResponseRedirect(reverse("runs:report", args=[run.id]), status=303)
