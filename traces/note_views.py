"""Notes and scores by people on the trace page: htmx gets the section that changed, a plain form the page again."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from accounts.access import get
from accounts.http import HttpRequest
from runs import noting
from runs.errors import Invalid
from runs.models import Run
from traces import noted, trace_page


@require_safe
def notes(request: HttpRequest, run_id: uuid.UUID, seq: int | None = None) -> HttpResponse:
    """The notes alone, for a page that is open: the newest, or with `all` all; 204 when they are those that it
    `have`."""
    run = get(request.access, Run, run_id)
    found = _found(request, run, seq, whole="all" in request.GET)
    if found["stamp"] == request.GET.get("have"):
        return HttpResponse(status=204)
    return render(request, "traces/_notes_list.html", {"run": run, "notes": found, "alone": True})


@require_POST
def add(request: HttpRequest, run_id: uuid.UUID, seq: int | None = None) -> HttpResponse:
    try:
        noting.add(request.access, run_id, _said(request), seq=seq)
    except Invalid as error:
        return _again(request, run_id, seq, error)
    return _done(request, run_id, seq)


@require_POST
def change(request: HttpRequest, run_id: uuid.UUID, note_id: uuid.UUID) -> HttpResponse:
    """`do=delete` deletes it."""
    seq = noted.seq_of(request.access, run_id, note_id)
    try:
        if request.POST.get("do") == "delete":
            noting.delete(request.access, run_id, note_id)
        else:
            noting.edit(request.access, run_id, note_id, _said(request))
    except Invalid as error:
        return _again(request, run_id, seq, error, note_id=note_id)
    return _done(request, run_id, seq)


def _said(request: HttpRequest) -> noting.Said:
    """Raises Invalid for a score that is no number."""
    raw = request.POST.get("score", "").strip()
    try:
        score = float(raw.replace(",", ".")) if raw else None
    except ValueError as error:
        raise Invalid({"score": "A score is a number from 0 to 1, such as 0.6."}) from error
    return noting.Said(text=request.POST.get("text", ""), score=score)


def _done(request: HttpRequest, run_id: uuid.UUID, seq: int | None) -> HttpResponse:
    if request.htmx:
        run = get(request.access, Run, run_id)
        found = _found(request, run, seq, whole="all" in request.POST)
        return render(request, "traces/_notes.html", {"run": run, "notes": found, "alone": True})
    if seq is None:
        return HttpResponseRedirect(reverse("traces:trace", args=[run_id]) + "?" + urlencode({"notes": "open"}))
    return HttpResponseRedirect(reverse("traces:step", args=[run_id, seq]) + "#notes-step")


def _again(
    request: HttpRequest, run_id: uuid.UUID, seq: int | None, error: Invalid, *, note_id: uuid.UUID | None = None
) -> HttpResponse:
    """With what was typed, and what is wrong with it."""
    typed: dict[str, Any] = {
        "note_id": note_id,
        "text": request.POST.get("text", ""),
        "score": request.POST.get("score", ""),
        "errors": error.errors,
    }
    if request.htmx:
        run = get(request.access, Run, run_id)
        found = _found(request, run, seq, whole=note_id is not None)
        return render(request, "traces/_notes.html", {"run": run, "notes": found | {"typed": typed}}, status=422)
    context = trace_page.page(request.access, run_id, seq=seq, fold=True, whole="", all_notes=note_id is not None)
    if context is None:
        raise Http404("This run has no such step.")
    place = "run_notes" if seq is None else "step_notes"
    if context[place] is None:
        raise PermissionDenied
    context[place] |= {"typed": typed, "open": True}
    return render(request, "traces/trace.html", context, status=422)


def _found(request: HttpRequest, run: Run, seq: int | None, *, whole: bool) -> dict[str, Any]:
    if seq is None:
        return noted.on_run(request.access, run, whole=whole)
    return noted.on_step(request.access, run, seq, whole=whole)
