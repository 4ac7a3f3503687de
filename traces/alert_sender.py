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
from accounts.webhooks import signature
from runs.tools.egress import AddressRefused, PinnedTransport
from traces.alerts import link_query
from traces.models import Alert, AlertEvent, Measure

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
    """By each way that does not have it yet: when one fails, the other is not used twice."""
    alert, problems = event.alert, []
    for target, way, done in ((alert.email, _mail, "mailed_at"), (alert.webhook, _post, "posted_at")):
        if target and getattr(event, done) is None:
            try:
                way(alert, event)
            except NotSent as error:
                problems.append(str(error))
            else:
                AlertEvent.objects.filter(id=event.id).update(**{done: timezone.now()})
    if problems:
        raise NotSent(" ".join(problems))


def text_of(event: AlertEvent) -> str:
    alert = event.alert
    who = event.label or f"The team {alert.team.name}"
    if alert.measure == Measure.RUN:
        spent = f"has cost ${event.value_usd:,.2f}"
    else:
        spent = f"has spent ${event.value_usd:,.2f} since {event.window.astimezone(dt.UTC):%-d %B} (UTC)"
    matching = f", counting runs that match {alert.query}" if alert.query else ""
    return f"{who} {spent}, above the limit of ${event.limit_usd:,.2f}{matching}."


def subject_of(event: AlertEvent) -> str:
    """One line, that tells what several events of one alert are about."""
    return " ".join(f"Costs: {event.alert.name}{f' ({event.label})' if event.label else ''}".split())


def url_of(event: AlertEvent) -> str:
    return f"{event.alert.origin}/traces/?q={quote(link_query(event.alert, event))}"


def _mail(alert: Alert, event: AlertEvent) -> None:
    if not settings.EMAIL_URL:
        raise NotSent("This installation sends no e-mail: EMAIL_URL is not set.")
    once = f"You are told of this once. Snooze or delete it: {alert.origin}/costs/alerts/"
    body = f"{text_of(event)}\n\nSee the runs: {url_of(event)}\n\n--\n{once}\n"
    message = EmailMessage(subject_of(event), body, to=[alert.email], headers={"Auto-Submitted": "auto-generated"})
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
        body = json.dumps(payload(event)).encode()
        signed = signature(decrypt(alert.secret), f"msg_{event.id.hex}", body) if alert.secret else {}
        status = anyio.run(_post_async, decrypt(alert.webhook), body, signed)
    except (AddressRefused, UnreadableSecret) as error:
        raise NotSent(str(error)) from error
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise NotSent(f"{alert.webhook_host} could not be reached: {type(error).__name__}.") from error
    if not 200 <= status < 300:
        raise NotSent(f"{alert.webhook_host} answered with HTTP {status}.")


async def _post_async(url: str, body: bytes, signed: dict[str, str]) -> int:
    """The status alone: what the other side says is not read."""
    transport = PinnedTransport(allow_private=settings.AGENTSITE_ALLOW_STDIO_SERVERS)
    headers = {"content-type": "application/json", "user-agent": "agentsite", **signed}
    client = httpx2.AsyncClient(transport=transport, follow_redirects=False, trust_env=False, timeout=TIMEOUT_S)
    with anyio.fail_after(TIMEOUT_S):
        async with client, client.stream("POST", url, content=body, headers=headers) as response:
            return int(response.status_code)
