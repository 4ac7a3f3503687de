"""Where a person, and a team, are told that something waits. Every write is a POST that works without scripts."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.db import transaction
from django.db.models import Q
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from accounts import receipts
from accounts.access import Access, Right, get, rows
from accounts.http import HttpRequest
from approvals import notice_forms, notices
from approvals.notice_forms import ChannelForm, channel_of
from approvals.notice_models import LEADS, Channel, ChannelKind, Notice

MOST_CHANNELS = 50


@never_cache
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    return _page(request)


@never_cache
@require_POST
@sensitive_variables("secret")
def add(request: HttpRequest) -> HttpResponse:
    """A signing secret is shown in this one answer and never again."""
    access, for_team = request.access, request.POST.get("for") == "team"
    access.require(Right.MANAGE if for_team else Right.DECIDE)
    form = ChannelForm(request.POST, for_team=for_team)
    if (
        form.is_valid()
        and rows(access, Channel).filter(user=None if for_team else access.user).count() >= MOST_CHANNELS
    ):
        form.add_error(None, f"There are {MOST_CHANNELS} already. Remove one first.")
    if not form.is_valid():
        return _page(request, status=422, **{"team_form" if for_team else "form": form})
    owner: dict[str, Any] = {"team": access.team, "user": None if for_team else access.user}
    channel, secret = channel_of(form, origin=request.build_absolute_uri("/"), **owner)
    with transaction.atomic():
        channel.save(force_insert=True)
        _receipt(channel, "channel.added", access)
    if secret:
        return _page(request, status=201, secret=secret, added=channel)
    messages.success(request, "Added. Send a test to see that it arrives.")
    return redirect("approvals:notifications")


@require_POST
def change(request: HttpRequest, channel_id: uuid.UUID) -> HttpResponse:
    """How often, when not, and where to; its way and its signing secret stay."""
    channel = _own(request.access, channel_id)
    form = ChannelForm(request.POST, for_team=channel.user_id is None, channel=channel)
    if not form.is_valid():
        return _page(request, status=422, changing=form)
    with transaction.atomic():
        channel = Channel.objects.select_for_update().get(id=channel.id)
        changed = notice_forms.change(channel, form)
        if changed:
            channel.save(force_update=True)
            _receipt(channel, "channel.changed", request.access, changed=changed)
    messages.success(request, "Saved." if changed else "Nothing is different.")
    return redirect("approvals:notifications")


@require_POST
def remove(request: HttpRequest, channel_id: uuid.UUID) -> HttpResponse:
    channel = _own(request.access, channel_id)
    with transaction.atomic():
        _receipt(channel, "channel.removed", request.access)
        channel.delete()
    messages.success(request, "Removed. Nothing is sent there any more.")
    return redirect("approvals:notifications")


@require_POST
def test(request: HttpRequest, channel_id: uuid.UUID) -> HttpResponse:
    notices.queue_test(_own(request.access, channel_id))
    messages.success(request, "A test is on its way. What became of it stands beside the channel in a few seconds.")
    return redirect("approvals:notifications")


@require_POST
def take(request: HttpRequest) -> HttpResponse:
    """What this person's browser is to show now. A POST, because what is taken is not given again."""
    taken = notices.take_for_browser(request.access.user.id, request.access.team.id)
    return JsonResponse({"notices": [_shown(notice) for notice in taken]})


def _shown(notice: Notice) -> dict[str, str]:
    batch = notice.batch
    if batch is None:
        return {"id": str(notice.id), "title": "This is a test", "body": "", "url": reverse("approvals:notifications")}
    url = reverse("approvals:batch", args=[batch.id])
    title = f"{LEADS.get(notice.kind, '')}{batch.title}"
    return {"id": str(notice.id), "title": title, "body": batch.run.short_id, "url": url}


def _own(access: Access, channel_id: uuid.UUID) -> Channel:
    """The person's own channel, or the team's for an admin. Another person's does not exist for them."""
    mine = Channel.objects.filter(Q(user=access.user) | Q(user=None))
    channel = get(access, mine, channel_id)
    access.require(Right.DECIDE if channel.user_id else Right.MANAGE)
    return channel


def _page(request: HttpRequest, status: int = 200, **shown: Any) -> HttpResponse:
    access = request.access
    found = list(rows(access, Channel).filter(Q(user=access.user) | Q(user=None)))
    last: dict[uuid.UUID, Notice] = {}
    for notice in rows(access, Notice).filter(channel__in=found).order_by("channel", "-created_at")[:500]:
        last.setdefault(notice.channel_id, notice)
    refused: ChannelForm | None = shown.get("changing")
    lists = [(channel, last.get(channel.id), _form_of(channel, refused)) for channel in found]
    context = {
        "mine": [each for each in lists if each[0].user_id],
        "teams": [each for each in lists if not each[0].user_id],
        "may_own": access.may(Right.DECIDE),
        "may_manage": access.may(Right.MANAGE),
        "form": ChannelForm(for_team=False),
        "team_form": ChannelForm(for_team=True),
        "has_browser": any(channel.kind == ChannelKind.BROWSER for channel in found),
        "access": access,
        **shown,
    }
    return render(request, "approvals/notifications.html", context, status=status)


def _form_of(channel: Channel, refused: ChannelForm | None) -> ChannelForm:
    """As it stands, or with what was typed and refused."""
    if refused is not None and refused.channel is not None and refused.channel.id == channel.id:
        return refused
    return ChannelForm(for_team=channel.user_id is None, channel=channel)


def _receipt(channel: Channel, kind: str, access: Access, **more: Any) -> None:
    receipts.append(
        access.team.id,
        kind,
        actor=access.user,
        subject_type="channel",
        subject_id=channel.id,
        payload={"kind": channel.kind, "label": channel.label, "of": "person" if channel.user_id else "team", **more},
    )
