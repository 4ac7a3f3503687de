"""Settings of a person and of their team. Each write is an ordinary POST that works without scripts."""

from __future__ import annotations

import datetime as dt
import uuid

from allauth.account.utils import perform_login
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest as AnyRequest
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from accounts import access as rights
from accounts import members, sign_in, teams, tokens
from accounts.access import LADDER, SESSION_TEAM, Access, Right
from accounts.forms import BudgetForm, FiltersForm, MemberForm, ProfileForm, RetentionForm, RoleForm, TokenForm
from accounts.http import HttpRequest
from accounts.models import ApiToken, Membership
from accounts.schemas import Role, Separation

THEMES = {"light", "dark"}
A_YEAR = 365 * 24 * 3600
SEPARATIONS = (
    (Separation.AUTO, "Somebody else, as soon as another person of this team may approve"),
    (Separation.ON, "Always somebody else"),
    (Separation.OFF, "Also who launched the run"),
)
INVITATION = dt.timedelta(hours=24)


@never_cache
@require_safe
def settings_page(request: HttpRequest) -> HttpResponse:
    return _settings(request)


@require_POST
def save_profile(request: HttpRequest) -> HttpResponse:
    form = ProfileForm(request.POST, instance=request.access.user)
    if not form.is_valid():
        return _settings(request, status=422, profile_form=form)
    form.save()
    messages.success(request, "Your settings are saved.")
    return redirect("accounts:settings")


@never_cache
@require_POST
@sensitive_variables("raw")
def add_token(request: HttpRequest) -> HttpResponse:
    """Answers with the page itself: the raw token is shown in this one answer and stored nowhere."""
    access = request.access
    form = TokenForm(tokens.scopes_of(access.role), request.POST)
    if not form.is_valid():
        return _settings(request, status=422, token_form=form)
    try:
        token, raw = tokens.create_token(
            access.user, access.team, name=form.cleaned_data["name"], scopes=form.granted, expires_at=form.expires_at
        )
    except tokens.TokenRefused as refused:
        form.add_error(None, str(refused))
        return _settings(request, status=422, token_form=form)
    return _settings(request, status=201, new_token=token, raw_token=raw)


@require_POST
def revoke_token(request: HttpRequest, token_id: uuid.UUID) -> HttpResponse:
    token = rights.get(request.access, ApiToken, token_id)
    if token.user_id != request.access.user.id:
        request.access.require(Right.MANAGE)
    tokens.revoke_token(token, request.access.user)
    messages.success(request, f"The token “{token.name}” is revoked. Whatever used it gets 401 from now on.")
    return redirect("accounts:settings")


@never_cache
@require_POST
def add_member(request: HttpRequest) -> HttpResponse:
    """A new user's invitation link is shown in this one answer."""
    access = request.access
    access.require(Right.MANAGE)
    form = MemberForm(request.POST)
    if not form.is_valid():
        return _settings(request, status=422, member_form=form)
    data = form.cleaned_data
    try:
        added = members.add_member(
            access.team, name=data["username"], email=data["email"], role=Role(data["role"]), by=access.user
        )
    except members.MemberRefused as refused:
        form.add_error(None, str(refused))
        return _settings(request, status=422, member_form=form)
    user = added.membership.user
    if not added.is_new_user:
        messages.success(request, f"{user.label} is a member of {access.team.name} now.")
        return redirect("accounts:settings")
    path = sign_in.sign_in_path(sign_in.issue_sign_in_link(user, INVITATION))
    return _settings(request, status=201, invited=user, invitation=request.build_absolute_uri(path))


@require_POST
def change_role(request: HttpRequest, membership_id: uuid.UUID) -> HttpResponse:
    membership = rights.get(
        request.access, Membership.objects.select_related("user"), membership_id, right=Right.MANAGE
    )
    form = RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, "No such role. Nothing was changed.")
        return redirect("accounts:settings")
    try:
        members.change_role(membership, Role(form.cleaned_data["role"]), request.access.user)
        messages.success(request, f"{membership.user.label} is {form.cleaned_data['role']} now.")
    except members.MemberRefused as refused:
        messages.error(request, str(refused))
    return redirect("accounts:settings")


@require_POST
def remove_member(request: HttpRequest, membership_id: uuid.UUID) -> HttpResponse:
    membership = rights.get(
        request.access, Membership.objects.select_related("user", "team"), membership_id, right=Right.MANAGE
    )
    try:
        members.remove_member(membership, request.access.user)
        messages.success(request, f"{membership.user.label} is no longer a member. Their tokens are revoked.")
    except members.MemberRefused as refused:
        messages.error(request, str(refused))
    return redirect("accounts:settings")


@require_POST
def set_separation(request: HttpRequest) -> HttpResponse:
    access = request.access
    access.require(Right.MANAGE)
    wanted = request.POST.get("separation", "")
    if wanted not in list(Separation):
        messages.error(request, "No such choice. Nothing was changed.")
        return redirect("accounts:settings")
    members.set_separation(access.team, Separation(wanted), access.user)
    messages.success(request, "Saved. It holds for every decision from now on.")
    return redirect("accounts:settings")


@require_POST
def save_filters(request: HttpRequest) -> HttpResponse:
    access = request.access
    access.require(Right.MANAGE)
    form = FiltersForm(request.POST)
    if not form.is_valid():
        return _settings(request, status=422, filters_form=form)
    teams.set_content_filters(access.team, form.cleaned_data, by=access.user)
    messages.success(request, "The filters are saved. They hold for every step from now on.")
    return redirect("accounts:settings")


@require_POST
def save_budget(request: HttpRequest) -> HttpResponse:
    access = request.access
    access.require(Right.MANAGE)
    form = BudgetForm(request.POST)
    if not form.is_valid():
        return _settings(request, status=422, budget_form=form)
    teams.set_month_budget(access.team, form.cleaned_data["month_budget_usd"], by=access.user)
    messages.success(request, "The budget is saved. It holds from the next model call on.")
    return redirect("accounts:settings")


@require_POST
def save_retention(request: HttpRequest) -> HttpResponse:
    access = request.access
    access.require(Right.MANAGE)
    form = RetentionForm(request.POST)
    if not form.is_valid():
        return _settings(request, status=422, retention_form=form)
    teams.set_retention(access.team, form.cleaned_data["retention_days"], by=access.user)
    messages.success(request, "Saved. Runs are removed once a day.")
    return redirect("accounts:settings")


@require_POST
def switch_team(request: HttpRequest) -> HttpResponse:
    access = rights.access_for_user(request.user, request.POST.get("team", ""))
    request.session[SESSION_TEAM] = access.team.slug
    return HttpResponseRedirect(_next(request, "/"))


@login_not_required
@require_POST
def switch_theme(request: HttpRequest) -> HttpResponse:
    """Any value but light and dark follows the system again. Scripts get 204, others go back to their page."""
    wants_page = not request.htmx and "text/html" in request.headers.get("Accept", "")
    response = HttpResponseRedirect(_next(request, "/")) if wants_page else HttpResponse(status=204)
    theme = request.POST.get("theme", "")
    if theme in THEMES:
        response.set_cookie("theme", theme, max_age=A_YEAR, secure=request.is_secure(), samesite="Lax")
    else:
        response.delete_cookie("theme", samesite="Lax")
    return response


@login_not_required
@never_cache
def sign_in_link(request: AnyRequest, token: str) -> HttpResponse:
    """GET only shows a button: mail scanners and link previews open links. POST spends the link."""
    user = sign_in.spend_link(token) if request.method == "POST" else sign_in.whose_link(token)
    if user is None:
        return render(request, "account/sign_in_link_used.html", status=410)
    if request.method != "POST":
        return render(request, "account/sign_in_link.html", {"link_user": user})
    # By allauth, so that a second factor is asked for as with a password.
    response: HttpResponse = perform_login(request, user, email_verification="none")
    return response


def _settings(request: HttpRequest, status: int = 200, **shown: object) -> HttpResponse:
    access = request.access
    context = {
        "access": access,
        "can_manage": access.may(Right.MANAGE),
        "profile_form": ProfileForm(instance=access.user),
        "token_form": TokenForm(tokens.scopes_of(access.role), initial={"scopes": tokens.scopes_of(access.role)}),
        "member_form": MemberForm(),
        "filters_form": FiltersForm(initial=teams.content_filters(access.team)),
        "retention_form": RetentionForm(initial={"retention_days": access.team.retention_days}),
        "budget_form": BudgetForm(initial={"month_budget_usd": teams.month_budget(access.team)}),
        "tokens": _tokens(access),
        "members": _members(access),
        "memberships": rights.memberships_of(access.user),
        "roles": LADDER,
        "separations": SEPARATIONS,
        "theme": request.COOKIES.get("theme", ""),
        **shown,
    }
    return render(request, "account/settings.html", context, status=status)


def _tokens(access: Access) -> list[ApiToken]:
    found = rights.rows(access, ApiToken).filter(revoked_at__isnull=True).select_related("user")
    return list((found if access.may(Right.MANAGE) else found.filter(user=access.user)).order_by("-created_at", "-id"))


def _members(access: Access) -> list[Membership]:
    return list(rights.rows(access, Membership).select_related("user").order_by("user__first_name", "user__username"))


def _next(request: AnyRequest, fallback: str) -> str:
    """The page to go back to: of this site only."""
    for target in (request.POST.get("next", ""), request.headers.get("Referer", "")):
        if url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure()):
            return target
    return fallback
