"""One message to one channel: by e-mail, to a Slack-compatible webhook, or to a signed webhook.

Only what agentsite itself knows is told: who proposes how much, until when, how risky. No argument and no word of a
model leaves by these ways. Each message leads to a page behind the sign-in, and nothing in it decides.
"""

from __future__ import annotations

import json
import smtplib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone

from accounts.secrets import UnreadableSecret, decrypt
from accounts.webhooks import signature
from approvals.notice_models import LEADS, Channel, ChannelKind, Notice, NoticeKind
from runs.ending import counted
from runs.engine.types import WAITING_ACTIONS, Risk
from runs.models import Action, Batch
from runs.tools.egress import AddressRefused, PinnedTransport

TIMEOUT_S = 10.0
GONE = (404, 410)
RANK = (NoticeKind.TEST, NoticeKind.WAITING, NoticeKind.SECOND, NoticeKind.REMINDER, NoticeKind.HANDED)
"""Of several tellings of one batch in a message the last in this order is told."""


class NotDelivered(Exception):
    """The text is for the channel's owner. `again`: whether trying later may help."""

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One batch in a message. `waits`: how many of its actions wait for a person."""

    title: str
    url: str
    run: str
    waits: int
    risk: str
    minutes: int
    kind: str

    @property
    def reminder(self) -> bool:
        return self.kind == NoticeKind.REMINDER

    @property
    def headline(self) -> str:
        return f"{LEADS.get(self.kind, '')}{self.title}"

    @property
    def text(self) -> str:
        return f"{self.headline} ({counted(self.waits, 'action', 'actions')}, {self.risk} risk, {self.time_left})"

    @property
    def time_left(self) -> str:
        if self.minutes < 120:
            return f"{counted(self.minutes, 'minute', 'minutes')} left"
        return f"{self.minutes // 60} hours left"


def send(channel: Channel, notices: Sequence[Notice]) -> None:
    """All of them in one message, each batch once. Raises NotDelivered."""
    notices = list({n.batch_id: n for n in sorted(notices, key=lambda n: RANK.index(n.kind))}.values())
    lines = [_line(notice, notice.batch) for notice in notices if notice.batch is not None]
    match ChannelKind(channel.kind):
        case ChannelKind.EMAIL:
            _send_email(channel, lines)
        case ChannelKind.SLACK:
            _post(channel, _slack(channel, lines), {})
        case ChannelKind.WEBHOOK:
            body = json.dumps(_webhook(channel, notices, lines), separators=(",", ":")).encode()
            signed = signature(decrypt(channel.secret), f"msg_{notices[0].id.hex}", body)
            _post(channel, body, signed)


def subject(lines: Sequence[Line]) -> str:
    if not lines:
        return "agentsite: this is a test"
    if len(lines) == 1:
        return lines[0].headline
    return f"{counted(len(lines), 'batch waits', 'batches wait')} for you in agentsite"


# --- the messages ----------------------------------------------------------------------------------------------------


def _line(notice: Notice, batch: Batch) -> Line:
    waiting: QuerySet[Action] = Action.objects.filter(batch=batch, status__in=list(WAITING_ACTIONS))
    risks = list(waiting.values_list("risk", flat=True))
    return Line(
        title=" ".join(batch.title.split()),  # in a header it has to be one line
        url=f"{notice.channel.origin}{reverse('approvals:batch', args=[batch.id])}",
        run=batch.run.short_id,
        waits=len(risks),
        risk=max(risks, key=lambda risk: Risk(risk).level, default=Risk.LOW),
        minutes=max(0, int((batch.expires_at - timezone.now()).total_seconds() // 60)),
        kind=notice.kind,
    )


def _send_email(channel: Channel, lines: Sequence[Line]) -> None:
    if not settings.EMAIL_URL:
        raise NotDelivered("This installation sends no e-mail: EMAIL_URL is not set.", again=False)
    address = _target(channel) or (channel.user.email if channel.user else "")
    if not address:
        raise NotDelivered("There is no e-mail address.", again=False)
    body = "\n\n".join(f"{line.text}\n{line.url}" for line in lines) or "Notices will reach you here."
    page = f"{channel.origin}{reverse('approvals:notifications')}"
    text = f"{body}\n\n--\nYou decide on the page, after signing in; this message decides nothing.\nSettings: {page}\n"
    message = EmailMultiAlternatives(subject(lines), text, to=[address], headers={"Auto-Submitted": "auto-generated"})
    try:
        message.send()
    except smtplib.SMTPRecipientsRefused as refused:
        raise NotDelivered(f"{address} was refused by the mail server.", again=False) from refused
    except (OSError, smtplib.SMTPException) as error:
        raise NotDelivered(f"The mail server could not be used: {type(error).__name__}.") from error


def _slack(channel: Channel, lines: Sequence[Line]) -> bytes:
    texts = [f"<{line.url}|{_for_slack(line.text)}>" for line in lines] or ["agentsite: this is a test."]
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": text}} for text in texts[:40]]
    more = len(texts) - 40
    if more > 0:
        inbox = f"{channel.origin}{reverse('approvals:inbox')}"
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": f"<{inbox}|and {more} more>"}})
    return json.dumps({"text": _for_slack(subject(lines)), "blocks": blocks}).encode()


def _for_slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _webhook(channel: Channel, notices: Sequence[Notice], lines: Sequence[Line]) -> dict[str, Any]:
    told = [notice for notice in notices if notice.batch is not None]
    batches = [
        {
            "id": str(notice.batch_id),
            "title": line.title,
            "url": line.url,
            "run": str(notice.batch.run_id) if notice.batch else None,
            "actions": line.waits,
            "risk": line.risk,
            "expires_at": notice.batch.expires_at.isoformat() if notice.batch else None,
            "reminder": line.reminder,
            "handed_over": line.kind == NoticeKind.HANDED,
            "needs_second": line.kind == NoticeKind.SECOND,
        }
        for notice, line in zip(told, lines, strict=True)
    ]
    kind = "approvals.waiting" if batches else "approvals.test"
    data = {"team": channel.team.slug, "batches": batches}
    return {"type": kind, "timestamp": timezone.now().isoformat(), "data": data}


# --- the way out -----------------------------------------------------------------------------------------------------


def _target(channel: Channel) -> str:
    try:
        return decrypt(channel.target) if channel.target else ""
    except UnreadableSecret as error:
        raise NotDelivered(str(error), again=False) from error


def _post(channel: Channel, body: bytes, headers: dict[str, str]) -> None:
    sent = {"content-type": "application/json", "user-agent": "agentsite", **headers}
    try:
        status = anyio.run(_post_async, _target(channel), body, sent)
    except AddressRefused as refused:
        raise NotDelivered(f"Not sent: {refused}.", again=False) from refused
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise NotDelivered(f"{channel.label} could not be reached: {type(error).__name__}.") from error
    if status in GONE:
        raise NotDelivered(f"{channel.label} answered with HTTP {status}: there is no such webhook.", again=False)
    if not 200 <= status < 300:
        raise NotDelivered(f"{channel.label} answered with HTTP {status}.")


async def _post_async(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The status alone: what the other side says is not read."""
    transport = PinnedTransport(allow_private=settings.AGENTSITE_ALLOW_STDIO_SERVERS)
    client = httpx2.AsyncClient(transport=transport, follow_redirects=False, trust_env=False, timeout=TIMEOUT_S)
    with anyio.fail_after(TIMEOUT_S):
        async with client, client.stream("POST", url, content=body, headers=headers) as response:
            return int(response.status_code)
