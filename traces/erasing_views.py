"""A person's data: found by name, address or any text, counted, and erased after it was confirmed. For admins."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from accounts.access import Right
from accounts.http import HttpRequest
from runs.erasure import NotYet
from runs.errors import Invalid
from traces import erasing
from traces.limits import TookTooLong, bounded
from traces.tree import Text


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def erasure(request: HttpRequest) -> HttpResponse:
    """A POST looks and changes nothing: what is looked for must not stand in addresses and logs."""
    request.access.require(Right.MANAGE)
    if request.method != "POST":
        return render(request, "traces/erasure.html", {})
    return _found(request, {})


@require_POST
def erase_text(request: HttpRequest) -> HttpResponse:
    request.access.require(Right.MANAGE)
    try:
        text = _confirmed(request)
        found = erasing.erase(request.access, text)
    except Invalid as error:
        return _found(request, {"errors": error.errors, "again": request.POST.get("again", "")}, status=422)
    kept = f" It still stands in {found.live_runs} runs that have not ended." if found.live_runs else ""
    messages.success(request, f"Erased from {found.runs} runs and {found.steps} steps. The audit log stays.{kept}")
    return HttpResponseRedirect(reverse("traces:erasure"))


@require_POST
def erase_person(request: HttpRequest, user_id: uuid.UUID) -> HttpResponse:
    request.access.require(Right.MANAGE)
    try:
        found = erasing.erase_person(request.access, user_id, username=_typed(request, "again"))
    except Invalid as error:
        return _found(request, {"errors": {"person": error.errors["username"]}, "user_id": user_id}, status=422)
    except NotYet as error:
        return _found(request, {"errors": {"person": str(error)}, "user_id": user_id}, status=409)
    messages.success(request, f"Erased, with the texts of {found.runs} runs. What they decided stays in the audit log.")
    return HttpResponseRedirect(reverse("traces:erasure"))


def _confirmed(request: HttpRequest) -> Text:
    """Raises Invalid where it was not typed twice."""
    if _typed(request, "again") != _typed(request, "text"):
        raise Invalid({"again": "This is not what you looked for. Nothing was erased."})
    return erasing.read(_typed(request, "text"))


def _typed(request: HttpRequest, name: str) -> str:
    return request.POST.get(name, "").strip()


def _found(request: HttpRequest, context: dict[str, Any], status: int = 200) -> HttpResponse:
    """The page with what there is; where that can't be told, with why."""
    raw = _typed(request, "text")
    errors = dict(context.get("errors", {}))
    shown: dict[str, Any] = {}
    try:
        text = erasing.read(raw)
        with bounded():
            shown = {"people": erasing.people(request.access, text)}
            shown["found"] = erasing.find(request.access, text)
    except Invalid as error:
        errors = {**error.errors, **errors}
        status = max(status, 422)
    except TookTooLong:
        errors["text"] = "Too much holds this to look through while you wait: write more of the name or address."
        status = 422
    return render(request, "traces/erasure.html", {**context, "text": raw, "errors": errors, **shown}, status=status)
