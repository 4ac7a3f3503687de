"""Alerts and prices of a team. Everybody may read them, admins change them: nobody raises their own limit."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any
from urllib.parse import urlsplit

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from accounts import receipts
from accounts.access import Right, get, rows
from accounts.http import HttpRequest
from accounts.secrets import encrypt
from accounts.webhooks import new_secret
from runs import rates
from runs.models import PriceOverride
from traces import alerts
from traces.cost_forms import AlertForm, PriceForm
from traces.models import Alert, AlertEvent

SNOOZES = {"day": dt.timedelta(days=1), "week": dt.timedelta(days=7)}
EVENTS = 50


@require_safe
def alert_list(request: HttpRequest) -> HttpResponse:
    """`?q=` is what a search would be watched for."""
    return _alerts(request, AlertForm(initial={"email": request.user.email, "query": request.GET.get("q", "")}))


@never_cache
@require_POST
@sensitive_variables("secret")
def add_alert(request: HttpRequest) -> HttpResponse:
    """The signing secret of a webhook is shown in this one answer and never again."""
    request.access.require(Right.MANAGE)
    form = AlertForm(request.POST)
    if not form.is_valid():
        return _alerts(request, form, status=422)
    values = dict(form.cleaned_data)
    webhook = values.pop("webhook")
    secret = new_secret() if webhook else ""
    with transaction.atomic():
        alert = Alert.objects.create(
            team=request.access.team,
            created_by=request.access.user,
            origin=f"{request.scheme}://{request.get_host()}",
            webhook=encrypt(webhook) if webhook else b"",
            webhook_host=(urlsplit(webhook).hostname or "")[:200],
            secret=encrypt(secret) if secret else b"",
            **values,
        )
        _receipt(request, "alert.added", alert)
    if secret:
        return _alerts(request, AlertForm(initial={"email": request.user.email}), status=201, made=alert, secret=secret)
    messages.success(request, f"“{alert.name}” is watched from now on.")
    return redirect("traces:alerts")


@require_POST
def snooze_alert(request: HttpRequest, alert_id: uuid.UUID) -> HttpResponse:
    """For a day or a week; anything else ends it."""
    alert = get(request.access, Alert, alert_id, right=Right.MANAGE)
    span = SNOOZES.get(request.POST.get("for", ""))
    Alert.objects.filter(id=alert.id).update(snoozed_until=timezone.now() + span if span else None)
    return redirect("traces:alerts")


@require_POST
def delete_alert(request: HttpRequest, alert_id: uuid.UUID) -> HttpResponse:
    alert = get(request.access, Alert, alert_id, right=Right.MANAGE)
    with transaction.atomic():
        _receipt(request, "alert.deleted", alert)
        alert.delete()
    messages.success(request, f"“{alert.name}” is watched no more.")
    return redirect("traces:alerts")


def _receipt(request: HttpRequest, kind: str, alert: Alert) -> None:
    payload = {"name": alert.name, "says": alerts.describe(alert), "query": alert.query}
    access = request.access
    receipts.append(access.team.id, kind, actor=access.user, subject_type="alert", subject_id=alert.id, payload=payload)


def _alerts(request: HttpRequest, form: AlertForm, status: int = 200, **shown: Any) -> HttpResponse:
    recent = rows(request.access, AlertEvent).select_related("alert").order_by("-fired_at")[:EVENTS]
    context: dict[str, Any] = {
        "alerts": alerts.overview(request.access.team.id, timezone.now()),
        "events": [{"event": each, "query": alerts.link_query(each.alert, each)} for each in recent],
        "form": form,
        "may_change": request.access.may(Right.MANAGE),
        "budget": request.access.team.month_budget_usd,
        **shown,
    }
    return render(request, "traces/alerts.html", context, status=status)


# --- prices ----------------------------------------------------------------------------------------------------------


@require_safe
def price_list(request: HttpRequest) -> HttpResponse:
    return _prices(request, PriceForm(initial={"starts_on": timezone.localdate()}))


@require_POST
def add_price(request: HttpRequest) -> HttpResponse:
    request.access.require(Right.MANAGE)
    form = PriceForm(request.POST)
    if not form.is_valid():
        return _prices(request, form, status=422)
    values = {**form.cleaned_data, "geo": form.cleaned_data["geo"].lower()}
    rates.add(request.access.team, request.access.user, values)
    messages.success(request, "New calls are priced with it. For those of the past there is manage.py reprice.")
    return redirect("traces:prices")


@require_POST
def end_price(request: HttpRequest, price_id: uuid.UUID) -> HttpResponse:
    row = get(request.access, PriceOverride.objects.select_related("team"), price_id, right=Right.MANAGE)
    if not rates.end(row, request.access.user, timezone.localdate()):
        messages.info(request, "It had ended already.")
    return redirect("traces:prices")


def _prices(request: HttpRequest, form: PriceForm, status: int = 200) -> HttpResponse:
    found = rows(request.access, PriceOverride).select_related("created_by")
    context = {"prices": found, "form": form, "may_change": request.access.may(Right.MANAGE)}
    return render(request, "traces/prices.html", context, status=status)
