"""What leaves the house, over loopback: the messages, their signature, and where they may not go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.core import mail
from django.test import override_settings
from django.utils import timezone

from accounts.secrets import encrypt
from approvals import senders
from approvals.notice_models import Channel, ChannelKind, Notice, NoticeKind
from approvals.senders import NotDelivered
from runs.engine.types import Risk
from tests.adapters.scripted_http import Answer, ScriptedHttp, scripted_http
from tests.approvals import factories as make
from tests.approvals.factories import World

HOSTILE = "<b>&\u202eSome | desk> wants"
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def hook(settings: Any) -> Iterator[ScriptedHttp]:
    settings.AGENTSITE_ALLOW_STDIO_SERVERS = True  # then private addresses are allowed too
    with scripted_http() as server:
        yield server


def channel(world: World, kind: str, url: str = "", **fields: Any) -> Channel:
    values = {
        "team": world.team,
        "user": world.people["approver"],
        "kind": kind,
        "origin": "https://agentsite.example",
        "target": encrypt(url) if url else b"",
        "secret": encrypt(SECRET),
        "label": "hooks.example",
        **fields,
    }
    return Channel.objects.create(**values)


def notice(to: Channel, world: World, kind: str = NoticeKind.WAITING, **fields: Any) -> Notice:
    batch, _ = make.make_full_batch(world, **fields)
    return Notice.objects.create(channel=to, batch=batch, kind=kind, due_at=timezone.now())


def test_the_generic_webhook_is_signed_and_says_what_waits(world: World, hook: ScriptedHttp) -> None:
    hook.answers.append(Answer(status=204))
    to = channel(world, ChannelKind.WEBHOOK, f"{hook.url}/in?team=a")
    told = notice(to, world)

    senders.send(to, [told])

    [body], [headers] = hook.requests, hook.headers
    assert body["type"] == "approvals.waiting"
    [batch] = body["data"]["batches"]
    assert (batch["id"], batch["actions"], batch["risk"]) == (str(told.batch_id), 3, Risk.CRITICAL)
    assert batch["url"] == f"https://agentsite.example/approvals/{told.batch_id}/"
    sent = json.dumps(body, separators=(",", ":")).encode()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + sent
    expected = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - timezone.now().timestamp()) < 60
    assert "Ines" not in json.dumps(body), "no argument leaves by this way"


def test_slack_gets_text_that_can_not_become_markup(world: World, hook: ScriptedHttp) -> None:
    hook.answers.append(Answer(body=b"ok", headers={"content-type": "text/plain"}))
    to = channel(world, ChannelKind.SLACK, f"{hook.url}/services/x")

    senders.send(to, [notice(to, world, title=HOSTILE), notice(to, world, kind=NoticeKind.REMINDER)])

    [body] = hook.requests
    first, second = (block["text"]["text"] for block in body["blocks"])
    assert "&lt;b&gt;&amp;" in first
    assert "<b>" not in first
    assert first.startswith("<https://agentsite.example/approvals/")
    assert "Reminder: " in second
    assert body["text"] == "2 batches wait for you in agentsite"


def test_a_batch_and_its_reminder_are_one_line(world: World, hook: ScriptedHttp) -> None:
    hook.answers.append(Answer())
    to = channel(world, ChannelKind.WEBHOOK, hook.url)
    first = notice(to, world)
    again = Notice.objects.create(channel=to, batch=first.batch, kind=NoticeKind.REMINDER, due_at=timezone.now())

    senders.send(to, [again, first])

    [batch] = hook.requests[0]["data"]["batches"]
    assert batch["reminder"] is True


def test_a_test_says_that_it_is_one(world: World, hook: ScriptedHttp) -> None:
    hook.answers += [Answer(), Answer()]
    for kind in (ChannelKind.SLACK, ChannelKind.WEBHOOK):
        to = channel(world, kind, hook.url)
        senders.send(to, [Notice.objects.create(channel=to, kind=NoticeKind.TEST, due_at=timezone.now())])

    assert "test" in hook.requests[0]["text"]
    assert hook.requests[1]["type"] == "approvals.test"


@pytest.mark.parametrize(("status", "again"), [(500, True), (429, True), (404, False), (410, False), (302, True)])
def test_answers_that_are_no_success(world: World, hook: ScriptedHttp, status: int, again: bool) -> None:
    hook.answers.append(Answer(status=status, headers={"location": "http://169.254.169.254/"}))
    to = channel(world, ChannelKind.WEBHOOK, hook.url)

    with pytest.raises(NotDelivered) as failed:
        senders.send(to, [notice(to, world)])

    assert failed.value.again is again
    assert str(status) in str(failed.value)
    assert len(hook.requests) == 1, "a redirect is not followed"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/",
        "http://localhost:9/",
        "http://[::1]:9/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:127.0.0.1]:9/",
        "http://0.0.0.0:9/",
    ],
)
def test_addresses_of_this_network_are_refused(world: World, url: str) -> None:
    to = channel(world, ChannelKind.WEBHOOK, url)
    with pytest.raises(NotDelivered, match="Not sent") as refused:
        senders.send(to, [notice(to, world)])
    assert refused.value.again is False


@override_settings(AGENTSITE_ALLOW_STDIO_SERVERS=True)
def test_metadata_is_refused_even_where_private_addresses_are_allowed(world: World) -> None:
    to = channel(world, ChannelKind.SLACK, "http://169.254.169.254/")
    with pytest.raises(NotDelivered, match="never allowed"):
        senders.send(to, [notice(to, world)])


def test_a_server_that_is_not_there(world: World, settings: Any) -> None:
    settings.AGENTSITE_ALLOW_STDIO_SERVERS = True
    to = channel(world, ChannelKind.SLACK, "http://127.0.0.1:9/")
    with pytest.raises(NotDelivered, match="could not be reached") as failed:
        senders.send(to, [notice(to, world)])
    assert failed.value.again is True


@override_settings(EMAIL_URL="smtp://mail.example", EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend")
def test_an_email_leads_to_the_page_and_decides_nothing(world: World) -> None:
    to = channel(world, ChannelKind.EMAIL)
    told = notice(to, world, title="Refund desk wants to do 3 things\nBcc: everybody@example.com")

    senders.send(to, [told])

    [message] = mail.outbox
    assert message.to == ["marco@harborpine.example"]
    assert "\n" not in message.subject
    assert f"https://agentsite.example/approvals/{told.batch_id}/" in message.body
    assert "decides nothing" in message.body
    assert "3 actions, critical risk" in message.body
    assert not message.bcc


def test_without_a_mail_server_nothing_pretends_to_be_sent(world: World) -> None:
    to = channel(world, ChannelKind.EMAIL)
    with pytest.raises(NotDelivered, match="EMAIL_URL") as failed:
        senders.send(to, [notice(to, world)])
    assert failed.value.again is False
    assert mail.outbox == []
