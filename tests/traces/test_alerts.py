"""Thresholds fire once, resolve, are snoozed and told; who may set them, and prices."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.core import mail
from django.test import Client, override_settings

from accounts.models import Receipt, Team, User
from accounts.receipts import verify
from accounts.schemas import Role
from accounts.secrets import encrypt
from runs.models import Agent, PriceOverride, Run
from tests.traces.factories import make_agent, make_model_step, make_run, make_team, make_user
from traces import alert_sender, alerts
from traces.matching import matching
from traces.models import Alert, AlertEvent
from traces.query import parse
from traces.scope import Scope

NOW = dt.datetime(2026, 3, 12, 12, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def make_alert(team: Team, **fields: Any) -> Alert:
    values: dict[str, Any] = {"name": "Too dear", "measure": "day", "origin": "https://agentsite.harborpine.example"}
    if "budget_share" not in fields:
        values["limit_usd"] = Decimal(1)
    alert = Alert.objects.create(team=team, **{**values, **fields})
    Alert.objects.filter(id=alert.id).update(created_at=NOW - 30 * DAY)
    return Alert.objects.select_related("team").get(id=alert.id)


def spend(agent: Agent, by: User, cost: str, days_ago: float = 0, **fields: Any) -> Run:
    run = make_run(agent, by, created=NOW - dt.timedelta(minutes=5) - days_ago * DAY, **fields)
    make_model_step(run, cost)
    return run


def state(alert: Alert, now: dt.datetime = NOW) -> str:
    return str(alerts.overview(alert.team_id, now)[0]["state"])


def test_a_day_above_its_limit_fires_once_and_resolves_with_the_day(team: Team, agent: Agent, dana: User) -> None:
    alert = make_alert(team)
    spend(agent, dana, "0.9")
    assert alerts.look(alert, NOW) == 0
    assert state(alert) == "quiet"
    spend(agent, dana, "0.2")
    assert alerts.look(alert, NOW) == 1
    assert state(alert) == "firing"
    spend(agent, dana, "5")
    assert alerts.look(alert, NOW + dt.timedelta(minutes=1)) == 0
    event = AlertEvent.objects.get()
    assert (event.value_usd, event.limit_usd) == (Decimal("6.1"), Decimal(1))
    assert event.window == NOW.replace(hour=0)
    assert alerts.look(alert, NOW + DAY) == 0
    assert state(alert) == "resolved"
    spend(agent, dana, "2", days_ago=-1)
    assert alerts.look(alert, NOW + DAY) == 1  # another day is another event


@pytest.mark.parametrize(
    ("measure", "per", "query", "labels"),
    [
        ("week", "", "", {""}),
        ("month", "agent", "", {"Refund desk"}),
        ("month", "user", "", {"Dana Okafor"}),
        ("month", "", "type:refund-late", {""}),
        ("month", "", "type:cleanup", set()),
        ("month", "agent", "cost:>0.5", {"Refund desk"}),
        ("month", "user", "agent:refund-desk", {"Dana Okafor"}),
    ],
)
def test_what_is_counted_and_for_whom(
    team: Team, agent: Agent, dana: User, measure: str, per: str, query: str, labels: set[str]
) -> None:
    marco = make_user(team, "marco", "Marco", "Ruiz")
    spend(agent, dana, "0.7", task_type="refund-late")
    spend(agent, dana, "0.6", task_type="refund-late")
    spend(make_agent(team, "nightly-cleanup", "Cleanup"), marco, "0.5", task_type="cleanup")
    alert = make_alert(team, measure=measure, per=per, query=query)
    alerts.look(alert, NOW)
    assert set(AlertEvent.objects.values_list("label", flat=True)) == labels


@pytest.mark.parametrize("per", ["", "agent", "user"])
def test_its_link_finds_the_runs_that_make_up_the_sum(team: Team, agent: Agent, dana: User, per: str) -> None:
    marco = make_user(team, "marco", "Marco (the second)", "Ruiz")
    spend(agent, dana, "0.7")
    spend(make_agent(team, "nightly-cleanup", "Cleanup"), marco, "0.4")
    spend(agent, marco, "9", days_ago=1)
    alert = make_alert(team, per=per, limit_usd=Decimal("0.1"))
    alerts.look(alert, NOW)
    for event in AlertEvent.objects.all():
        for zone in ("UTC", "America/Los_Angeles"):
            now = NOW.astimezone(ZoneInfo(zone))
            runs = matching(Run.objects.all(), parse(alerts.link_query(alert, event), now).node, Scope(team.id, now))
            assert sum(run.cost_usd for run in runs) == event.value_usd


def test_each_dear_run_fires_once_also_years_of_looking(team: Team, agent: Agent, dana: User) -> None:
    alert = make_alert(team, measure="run")
    spend(agent, dana, "0.5")
    dear = spend(agent, dana, "1.5")
    live = spend(agent, dana, "3", seconds=None)
    spend(agent, dana, "9", days_ago=40)  # ended long before
    assert alerts.look(alert, NOW) == 2
    assert alerts.look(alert, NOW) == 0
    found = {event.subject: event.resolved_at for event in AlertEvent.objects.all()}
    assert found == {str(dear.id): NOW, str(live.id): None}
    assert alerts.link_query(alert, AlertEvent.objects.get(subject=str(dear.id))) == f"run:{dear.id}"


def test_a_share_of_the_budget_follows_the_budget(team: Team, agent: Agent, dana: User) -> None:
    alert = make_alert(team, measure="month", budget_share=Decimal(80))
    spend(agent, dana, "9")
    assert alerts.look(alert, NOW) == 0
    Team.objects.filter(id=team.id).update(month_budget_usd=10)
    alert = Alert.objects.select_related("team").get(id=alert.id)
    assert alerts.look(alert, NOW) == 1
    Team.objects.filter(id=team.id).update(month_budget_usd=20)
    alerts.look(Alert.objects.select_related("team").get(id=alert.id), NOW)
    assert state(alert) == "resolved"


def test_another_teams_money_fires_nothing(team: Team, agent: Agent, dana: User) -> None:
    other = make_team("elsewhere", "Elsewhere")
    spend(make_agent(other), make_user(other, "otto", "Otto", "Brand"), "50")
    for query in ("", "cost:>1"):
        assert alerts.look(make_alert(team, query=query, measure="month"), NOW) == 0


def test_a_snoozed_alert_is_recorded_and_tells_nobody(team: Team, agent: Agent, dana: User) -> None:
    alert = make_alert(team, snoozed_until=NOW + DAY, email="dana@harborpine.example")
    spend(agent, dana, "2")
    assert alerts.look(alert, NOW) == 1
    assert state(alert) == "snoozed"
    with time_machine.travel(NOW + dt.timedelta(minutes=1), tick=False):
        alert_sender.send_due()
    assert mail.outbox == []
    assert AlertEvent.objects.get().told_at is None


# --- telling ---------------------------------------------------------------------------------------------------------


def test_what_still_fires_after_the_pause_is_told_then_and_once(team: Team, agent: Agent, dana: User) -> None:
    alert = make_alert(team, snoozed_until=NOW + DAY / 8, email="dana@harborpine.example", measure="month", per="agent")
    passing = make_alert(team, snoozed_until=NOW + DAY / 8, email="marco@harborpine.example")
    spend(agent, dana, "2")
    for each in (alert, passing):
        assert alerts.look(each, NOW) == 1
    with override_settings(EMAIL_URL="smtp://localhost"):
        for hours in (1, 30, 31):  # the day of the second is over by then
            later = NOW + hours * dt.timedelta(hours=1)
            with time_machine.travel(later, tick=False):
                for each in (alert, passing):
                    alerts.look(each, later)
                alert_sender.send_due()
            assert [message.to for message in mail.outbox] == ([] if hours == 1 else [["dana@harborpine.example"]])


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    got: list[dict[str, Any]] = []
    answers = [204]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append({**json.loads(body), "body": body, "headers": dict(self.headers)})
            self.send_response(answers[0])
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got, answers
    server.shutdown()
    server.server_close()
    thread.join()


@override_settings(EMAIL_URL="smtp://localhost", AGENTSITE_ALLOW_STDIO_SERVERS=True)
def test_an_event_is_told_once_by_mail_and_webhook(
    team: Team, agent: Agent, dana: User, hook: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    url, got, answers = hook
    alert = make_alert(
        team, per="agent", email="dana@harborpine.example", webhook=encrypt(url), webhook_host="127.0.0.1"
    )
    spend(agent, dana, "2")
    alerts.look(alert, NOW)
    answers[0] = 500
    with time_machine.travel(NOW, tick=False):
        alert_sender.send_due()
    event = AlertEvent.objects.get()
    assert (event.told_at, event.error) == (None, "127.0.0.1 answered with HTTP 500.")
    assert event.due_at == NOW + dt.timedelta(minutes=1)
    answers[0] = 204
    with time_machine.travel(NOW + 2 * dt.timedelta(minutes=1), tick=False):
        alert_sender.send_due()
        alert_sender.send_due()
        assert not alert_sender.send(event)  # what another worker has claimed
    assert len(got) == 2
    data = got[1]["data"]
    assert (got[1]["type"], data["subject"], data["value_usd"]) == ("costs.alert", "refund-desk", "2.000000000")
    assert "since%3A2026-03-12T00%3A00Z%20agent%3Arefund-desk" in data["url"]
    (message,) = mail.outbox  # not again when the other way failed
    assert message.subject == "Costs: Too dear (Refund desk)"
    assert "Refund desk has spent $2.00 since 12 March (UTC), above the limit of $1.00.\n" in message.body
    assert AlertEvent.objects.get().told_at == NOW + 2 * dt.timedelta(minutes=1)


@override_settings(AGENTSITE_ALLOW_STDIO_SERVERS=True)
def test_a_webhook_is_signed_with_the_secret_its_maker_was_shown(
    team: Team, agent: Agent, dana: User, hook: tuple[str, list[dict[str, Any]], list[int]]
) -> None:
    url, got, answers = hook
    answered = sign_in(dana).post("/costs/alerts/new/", {**GIVEN, "email": "", "limit_usd": "1", "webhook": url})
    assert answered.status_code == 201
    assert answered["Cache-Control"].startswith("max-age=0")
    secret = answered.context["secret"]
    assert secret in answered.content.decode()
    assert secret not in sign_in(dana).get("/costs/alerts/").content.decode()
    alert = Alert.objects.select_related("team").get()
    assert secret.encode() not in bytes(alert.secret)
    spend(agent, dana, "2")
    alerts.look(alert, NOW)
    with time_machine.travel(NOW, tick=False):
        answers[0] = 500
        alert_sender.send_due()
    answers[0] = 204
    with time_machine.travel(NOW + dt.timedelta(minutes=2), tick=False):
        alert_sender.send_due()
    event = AlertEvent.objects.get()
    first, second = (part["headers"] for part in got)
    assert first["webhook-id"] == second["webhook-id"] == f"msg_{event.id.hex}"  # the same message: a repeat shows
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{second['webhook-id']}.{second['webhook-timestamp']}.".encode() + got[1]["body"]
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert second["webhook-signature"] == f"v1,{expected}"
    assert int(second["webhook-timestamp"]) == int((NOW + dt.timedelta(minutes=2)).timestamp())
    assert event.posted_at == event.told_at == NOW + dt.timedelta(minutes=2)
    assert event.mailed_at is None


@override_settings(EMAIL_URL="", AGENTSITE_ALLOW_STDIO_SERVERS=False)
def test_what_can_never_be_told_is_given_up(team: Team, agent: Agent, dana: User) -> None:
    hidden = encrypt("http://127.0.0.1:9/hook")
    alert = make_alert(team, email="dana@harborpine.example", webhook=hidden, webhook_host="127.0.0.1")
    spend(agent, dana, "2")
    alerts.look(alert, NOW)
    for hour in range(8):
        with time_machine.travel(NOW + hour * dt.timedelta(hours=1), tick=False):
            alert_sender.send_due()
    event = AlertEvent.objects.get()
    assert (event.attempts, event.due_at, event.told_at) == (5, None, None)
    assert "EMAIL_URL is not set" in event.error
    assert "127.0.0.1" in event.error


# --- pages -----------------------------------------------------------------------------------------------------------


def sign_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


GIVEN = {"name": "Dear <b>days</b>", "measure": "day", "limit_usd": "40", "email": "dana@harborpine.example"}


def test_an_admin_makes_snoozes_and_deletes_an_alert(team: Team, agent: Agent, dana: User) -> None:
    client = sign_in(dana)
    given = {**GIVEN, "webhook": "https://hooks.harborpine.example/x"}
    assert client.post("/costs/alerts/new/", given).status_code == 201
    alert = Alert.objects.get()
    assert (alert.origin, alert.webhook_host) == ("http://testserver", "hooks.harborpine.example")
    assert b"hooks" not in bytes(alert.webhook)
    page = client.get("/costs/alerts/").content.decode()
    assert "Dear &lt;b&gt;days&lt;/b&gt;" in page
    client.post(f"/costs/alerts/{alert.id}/snooze/", {"for": "day"})
    assert "Snoozed until" in client.get("/costs/alerts/").content.decode()
    client.post(f"/costs/alerts/{alert.id}/snooze/")
    alert.refresh_from_db()
    assert alert.snoozed_until is None
    make_model_step(make_run(agent, dana), "0.1")
    assert "Dear &lt;b&gt;days" in client.get("/costs/?range=custom&from=2026-01-01").content.decode()
    client.post(f"/costs/alerts/{alert.id}/delete/")
    assert not Alert.objects.exists()
    assert list(Receipt.objects.order_by("seq").values_list("kind", flat=True)) == ["alert.added", "alert.deleted"]
    assert verify(team) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit_usd": ""}, "Give an amount, or a percentage of the budget."),
        ({"budget_share": "80"}, "Give an amount, or a percentage"),
        ({"limit_usd": "", "budget_share": "80"}, "The budget is one of a month"),
        ({"limit_usd": "", "budget_share": "80", "measure": "month", "per": "user"}, "The budget is the team&#x27;s"),
        ({"query": "statsu:failed"}, "Did you mean"),
        ({"query": "status:failed | by agent"}, "leave out what stands behind the |"),
        ({"limit_usd": "many"}, "Write an amount such as 40"),
        ({"email": "nobody"}, "valid email"),
        ({"webhook": "javascript:alert(1)"}, "valid URL"),
    ],
)
def test_a_mistake_is_said_and_nothing_typed_is_lost(dana: User, changes: dict[str, str], said: str) -> None:
    response = sign_in(dana).post("/costs/alerts/new/", {**GIVEN, **changes})
    assert response.status_code == 422
    assert said in response.content.decode()
    assert 'value="Dear &lt;b&gt;days&lt;/b&gt;"' in response.content.decode()
    assert not Alert.objects.exists()


PRICE = {"model": "claude-*", "starts_on": "2026-11-01", "factor": "0.85", "note": "contract 7"}


def test_an_admin_adds_and_ends_a_price(team: Team, dana: User) -> None:
    client = sign_in(dana)
    assert client.post("/costs/prices/new/", PRICE).status_code == 302
    row = PriceOverride.objects.get()
    assert "contract 7" in client.get("/costs/prices/").content.decode()
    for _ in range(2):
        client.post(f"/costs/prices/{row.id}/end/")
    row.refresh_from_db()
    assert row.ends_on is not None
    response = client.post("/costs/prices/new/", {**PRICE, "factor": "", "input": "2"})
    assert response.status_code == 422
    assert "each kind of token needs one" in response.content.decode()
    assert client.post("/costs/prices/new/", {**PRICE, "factor": ""}).status_code == 422


WRITES = ("/costs/alerts/new/", "/costs/prices/new/", "/costs/alerts/{alert}/delete/", "/costs/alerts/{alert}/snooze/",
          "/costs/prices/{price}/end/")  # fmt: skip


@pytest.mark.parametrize("path", WRITES)
def test_only_admins_of_the_team_change_anything(team: Team, dana: User, path: str) -> None:
    alert = make_alert(team)
    price = PriceOverride.objects.create(team=team, model="*", starts_on=NOW.date(), factor=1)
    path = path.format(alert=alert.id, price=price.id)
    for role in (Role.VIEWER, Role.OPERATOR, Role.APPROVER):
        assert sign_in(make_user(team, f"a-{role}", role=role)).post(path, GIVEN).status_code == 403
    otto = make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand")
    if "new" not in path:
        assert sign_in(otto).post(path, GIVEN).status_code == 404
    assert sign_in(dana).get(path).status_code == 405
    assert Client().post(path, GIVEN).status_code == 302
    assert (Alert.objects.count(), PriceOverride.objects.get().ends_on) == (1, None)


@pytest.mark.parametrize("path", ["/costs/alerts/", "/costs/prices/"])
def test_everybody_of_the_team_may_read_them(team: Team, path: str) -> None:
    make_alert(team, name="Ours alone")
    PriceOverride.objects.create(team=team, model="ours-alone", starts_on=NOW.date(), factor=1)
    page = sign_in(make_user(team, "vic", role=Role.VIEWER)).get(path).content.decode()
    assert "urs" in page
    assert 'type="submit">Watch it' not in page
    otto = make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand")
    other = sign_in(otto).get(path).content.decode()
    assert "Ours alone" not in other
    assert "ours-alone" not in other


def test_a_search_becomes_an_alert_with_a_click(team: Team, agent: Agent, dana: User) -> None:
    make_run(agent, dana, task="late parcel")
    client = sign_in(dana)
    link = "/costs/alerts/?q=late%20%22x%20y%22%20OR%20late#new-alert"
    assert f'href="{link}"' in client.get("/traces/", {"q": 'late "x y" OR late'}).content.decode()
    part = client.get("/traces/", {"q": "late"}, headers={"HX-Request": "true"}).content.decode()
    assert '<span id="alert-on" hx-swap-oob="true"><a' in part
    assert 'id="alert-on" hx-swap-oob' not in client.get("/traces/", {"q": "late"}).content.decode()
    form = client.get(link).context["form"]
    assert form["query"].value() == 'late "x y" OR late'
    assert "Alert on this" not in client.get("/traces/").content.decode()
    reader = sign_in(make_user(team, "olga", role=Role.OPERATOR))
    assert "Alert on this" not in reader.get("/traces/", {"q": "late"}).content.decode()
