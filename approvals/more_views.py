"""Standing permissions and later looks: pages around the inbox. Every write is a POST."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from accounts.access import Right, get
from accounts.http import HttpRequest
from approvals import grant_form, grants, sampling
from approvals.models import LaterLook, StandingGrant
from runs import previews
from runs.errors import Conflict, Invalid
from runs.models import Action

LISTED = 200
SHOWN = 50


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    found = list(grants.listed(request.access)[:LISTED])
    standing = [grant for grant in found if _stands(grant, now)]
    context = {
        "standing": [grant_form.described(grant) for grant in standing],
        "ended": [grant_form.described(grant) for grant in found if grant not in standing],
        "may_decide": request.access.may(Right.DECIDE),
    }
    return render(request, "approvals/grants.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def give(request: HttpRequest, action_id: uuid.UUID) -> HttpResponse:
    get(request.access, Action, action_id, right=Right.DECIDE)
    try:
        action = grants.origin(request.access, action_id)
    except Conflict as conflict:
        messages.warning(request, conflict.detail)
        return redirect("approvals:grants")
    if request.method != "POST":
        return _form(request, action, grant_form.first(action), {})
    typed = grant_form.typed(request.POST)
    try:
        wish = grant_form.read(action, typed)
        if request.POST.get("submit") == "give":
            grants.give(request.access, action_id, wish)
            messages.success(request, "Given. Such calls run without asking until it is used up, ends or is revoked.")
            return redirect("approvals:grants")
    except Invalid as invalid:
        return _form(request, action, typed, invalid.errors, status=422)
    return _form(request, action, typed, {}, seen=grants.preview(action, wish))


@require_POST
def revoke(request: HttpRequest, grant_id: uuid.UUID) -> HttpResponse:
    if grants.revoke(request.access, grant_id):
        messages.success(request, "Revoked. From now on people are asked again.")
    else:
        messages.warning(request, "It was revoked already.")
    return redirect("approvals:grants")


@require_GET
def later(request: HttpRequest) -> HttpResponse:
    return _later(request)


@require_POST
def look(request: HttpRequest, look_id: uuid.UUID) -> HttpResponse:
    get(request.access, LaterLook, look_id, right=Right.DECIDE)
    verdict, note = request.POST.get("verdict", ""), request.POST.get("note", "")
    try:
        done = sampling.review(request.access, look_id, verdict, note)
    except Invalid as invalid:
        return _later(request, status=422, wrong=look_id, typed=note, problem=" ".join(invalid.errors.values()))
    if done is None:
        messages.warning(request, "Somebody looked at this already.")
    else:
        messages.success(request, "Noted. It counts for what may run alone.")
    return redirect("approvals:later")


def _form(
    request: HttpRequest,
    action: Action,
    typed: dict[str, str],
    errors: Any,
    *,
    status: int = 200,
    seen: grants.Preview | None = None,
) -> HttpResponse:
    if seen is None and not errors:
        seen = grants.preview(action, grant_form.read(action, typed))
    context = {
        "action": action,
        "title": previews.title_of(action),
        "rows": grant_form.rows(action, typed),
        "numbers": grant_form.numbers(action),
        "typed": typed,
        "errors": errors,
        "preview": seen,
        "covered": [(each, previews.title_of(each)) for each in seen.covered[:SHOWN]] if seen else [],
    }
    return render(request, "approvals/allow.html", context, status=status)


def _later(request: HttpRequest, status: int = 200, **more: Any) -> HttpResponse:
    access = request.access
    waiting = list(sampling.waiting(access)[:SHOWN])
    context = {
        "waiting": [(each, previews.present(each.action), previews.arguments_of(each.action.args)) for each in waiting],
        "reviewed": [(each, previews.title_of(each.action)) for each in sampling.reviewed(access)[:SHOWN]],
        "may_decide": access.may(Right.DECIDE),
        **more,
    }
    return render(request, "approvals/later.html", context, status=status)


def _stands(grant: StandingGrant, now: Any) -> bool:
    return grant.revoked_at is None and grant.expires_at > now and grant.uses_left > 0
