"""Tells of passed thresholds by e-mail and webhook.

Each event is claimed by a conditional UPDATE before anything is sent, and nothing is sent within a transaction. A way
out that fails is tried again a few times, later each time.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import smtplib
from typing import Any, Final
from urllib.parse import quote

import anyio
import httpx2
from django.conf import settings
from django.core.mail import EmailMessage
from django.db.models import F
from django.utils import timezone

from accounts.secrets import UnreadableSecret, decrypt
from runs.tools.egress import AddressRefused, PinnedTransport
from traces.alerts import describe, link_query
from traces.models import Alert, AlertEvent

logger = logging.getLogger(__name__)
MOST_TRIES: Final = 5
AT_ONCE: Final = 50
TIMEOUT_S: Final = 10.0


class NotSent(Exception):
    """The text is for whoever made the alert."""


def send_due() -> None:
    """The worker's chore."""
    due = AlertEvent.objects.filter(due_at__lte=timezone.now()).order_by("due_at")
    for event in due.select_related("alert__team")[:AT_ONCE]:
        send(event)


def send(event: AlertEvent) -> bool:
    """Whether this call told of it. The next try is set before the first byte leaves: a crash loses nothing."""
    now = timezone.now()
    again = now + dt.timedelta(minutes=2**event.attempts)
    last = event.attempts + 1 >= MOST_TRIES
    claim = AlertEvent.objects.filter(id=event.id, due_at=event.due_at, attempts=event.attempts)
    if claim.update(attempts=F("attempts") + 1, due_at=None if last else again) != 1:
        return False
    try:
        _tell(event)
    except NotSent as error:
        AlertEvent.objects.filter(id=event.id).update(error=str(error)[:300])
        return False
    AlertEvent.objects.filter(id=event.id).update(told_at=timezone.now(), due_at=None, error="")
    return True


def _tell(event: AlertEvent) -> None:
    alert, problems = event.alert, []
    for target, way in ((alert.email, _mail), (alert.webhook, _post)):
        if target:
            try:
                way(alert, event)
            except NotSent as error:
                problems.append(str(error))
    if problems:
        raise NotSent(" ".join(problems))


def text_of(event: AlertEvent) -> str:
    alert = event.alert
    who = f"{event.label}: " if event.label else ""
    return f"{who}${event.value_usd:,.2f}, above ${event.limit_usd:,.2f} ({describe(alert)})"


def url_of(event: AlertEvent) -> str:
    return f"{event.alert.origin}/traces/?q={quote(link_query(event.alert, event))}"


def _mail(alert: Alert, event: AlertEvent) -> None:
    if not settings.EMAIL_URL:
        raise NotSent("This installation sends no e-mail: EMAIL_URL is not set.")
    subject = " ".join(f"Costs: {alert.name}".split())
    body = f"{text_of(event)}\n{url_of(event)}\n\n--\nYou are told of this once. Alerts: {alert.origin}/costs/alerts/\n"
    message = EmailMessage(subject, body, to=[alert.email], headers={"Auto-Submitted": "auto-generated"})
    try:
        message.send()
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(f"The mail server could not be used: {type(error).__name__}.") from error


def payload(event: AlertEvent) -> dict[str, Any]:
    return {
        "type": "costs.alert",
        "id": str(event.id),
        "timestamp": event.fired_at.isoformat(),
        "data": {
            "team": event.alert.team.slug,
            "alert": event.alert.name,
            "measure": event.alert.measure,
            "subject": event.subject,
            "label": event.label,
            "value_usd": str(event.value_usd),
            "limit_usd": str(event.limit_usd),
            "window_start": event.window.isoformat(),
            "url": url_of(event),
        },
    }


def _post(alert: Alert, event: AlertEvent) -> None:
    try:
        url = decrypt(alert.webhook)
        status = anyio.run(_post_async, url, json.dumps(payload(event)).encode())
    except (AddressRefused, UnreadableSecret) as error:
        raise NotSent(str(error)) from error
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise NotSent(f"{alert.webhook_host} could not be reached: {type(error).__name__}.") from error
    if not 200 <= status < 300:
        raise NotSent(f"{alert.webhook_host} answered with HTTP {status}.")


async def _post_async(url: str, body: bytes) -> int:
    """The status alone: what the other side says is not read."""
    transport = PinnedTransport(allow_private=settings.AGENTSITE_ALLOW_STDIO_SERVERS)
    headers = {"content-type": "application/json", "user-agent": "agentsite"}
    client = httpx2.AsyncClient(transport=transport, follow_redirects=False, trust_env=False, timeout=TIMEOUT_S)
    with anyio.fail_after(TIMEOUT_S):
        async with client, client.stream("POST", url, content=body, headers=headers) as response:
            return int(response.status_code)
