"""What is removed, what stays, and that the audit log still proves itself; spans that leave for a collector."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import Client, override_settings
from django.utils import timezone

from accounts import receipts
from accounts.access import access_for_user
from accounts.models import ApiToken, Membership, Receipt, Team, User
from accounts.schemas import Role
from runs.asked import RunMessage
from runs.models import Action, Agent, Run, SearchDocument, Step, StepPayload
from tests.traces.factories import T0, make_action, make_model_step, make_run, make_team, make_user
from traces import costs, otel_export, retention
from traces.models import SpanExport

DAY = dt.timedelta(days=1)


def total(user: User) -> Decimal | None:
    return costs.report(access_for_user(user), by="agent", start=T0 - 9 * DAY, end=timezone.now() + DAY).total.cost


@pytest.fixture
def runs(agent: Agent, dana: User) -> dict[str, Run]:
    now = timezone.now()
    found = {
        "old": make_run(agent, dana),
        "proven": make_run(agent, dana),
        "new": make_run(agent, dana, created=now - DAY),
        "live": make_run(agent, dana, seconds=None),
    }
    for run in found.values():
        make_model_step(run, "0.5", reasoning="a secret")
    make_action(found["proven"], status="rejected")
    return found


def test_what_is_old_goes_and_what_it_cost_stays(team: Team, dana: User, runs: dict[str, Run]) -> None:
    assert retention.prune(team, 90 * DAY, write=False) == retention.Pruned(1, 1, 2)
    assert Run.objects.count() == 4
    out = StringIO()
    call_command("prune", "--older-than", "90d", json=True, stdout=out)
    assert json.loads(out.getvalue())[team.slug] == {"runs": 1, "emptied": 1, "steps": 2}
    assert set(Run.objects.values_list("id", flat=True)) == {runs[name].id for name in ("proven", "new", "live")}
    emptied = Run.objects.get(id=runs["proven"].id)
    assert (emptied.task, emptied.steps.count(), emptied.actions.count()) == ("[removed]", 0, 1)
    assert Step.objects.count() == 2
    assert total(dana) == 2
    assert Receipt.objects.get(kind="data.pruned").payload["runs"] == 1
    assert receipts.verify(team) == []
    assert retention.prune(team, 90 * DAY) == retention.Pruned(0, 0, 0)
    assert total(dana) == 2
    with pytest.raises(CommandError):
        call_command("prune", "--older-than", "soon")
    call_command("prune", "--older-than", "0d", stdout=StringIO())
    left = Run.objects.exclude(task="[removed]").values_list("id", flat=True)
    assert set(left) == {runs["live"].id}, "whatever has ended"


def test_a_team_says_how_long_it_keeps_its_runs(team: Team, dana: User, runs: dict[str, Run]) -> None:
    retention.prune_by_teams()
    assert Run.objects.count() == 4
    client = Client()
    client.force_login(dana, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post("/accounts/retention/", {"retention_days": "1"}).status_code == 422
    assert client.post("/accounts/retention/", {"retention_days": "30"}).status_code == 302
    assert "Keeping of runs" in client.get("/accounts/settings/").content.decode()
    retention.prune_by_teams()
    assert Run.objects.count() == 3
    client.force_login(make_user(team, "vic", role=Role.APPROVER), backend="django.contrib.auth.backends.ModelBackend")
    assert client.post("/accounts/retention/", {"retention_days": ""}).status_code == 403


# --- a person --------------------------------------------------------------------------------------------------------


def test_a_person_is_found_and_erased_and_the_receipts_still_verify(
    team: Team, agent: Agent, dana: User, runs: dict[str, Run]
) -> None:
    marco = make_user(team, "marco", "Marco", "Ruiz")
    run = make_run(agent, marco, task="Refund Marco's parcel")
    make_model_step(run, "0.25", reasoning="Marco asked", output={"to": "marco@harborpine.example"})
    RunMessage.objects.create(run=runs["old"], sender=marco, text="I am Marco")
    ApiToken.objects.create(team=team, user=marco, name="t", digest="d", prefix="p")
    with transaction.atomic():
        receipts.append(team.id, "x", actor=marco, subject_type="run", subject_id=run.id, payload={})
    out = StringIO()
    call_command("erase_person", "Marco", json=True, stdout=out)
    found = json.loads(out.getvalue())
    assert not found["erased"]
    assert [found[name] for name in ("runs", "messages", "tokens", "receipts")] == [1, 1, 1, 1]
    assert User.objects.filter(username="marco").exists()
    call_command("erase_person", "marco", yes=True, stdout=out)
    marco.refresh_from_db()
    assert (marco.label, marco.email, marco.is_active) == (marco.username, "", False)
    assert marco.username.startswith("erased-")
    assert not ApiToken.objects.exists()
    assert not Membership.objects.filter(user=marco).exists()
    assert RunMessage.objects.get().text == "[erased]"
    run.refresh_from_db()
    assert run.task == "[erased]"
    assert StepPayload.objects.get(step__run=run).output is None
    assert not SearchDocument.objects.filter(run=run).exists()
    assert total(dana) == Decimal("2.25")
    assert Receipt.objects.filter(kind="person.erased").count() == 1
    assert receipts.verify(team) == []
    texts = [run.task, run.result, *Step.objects.filter(run=run).values_list("title", flat=True)]
    assert not any("Marco" in text for text in texts)


def test_nobody_is_erased_in_the_middle_of_a_run(dana: User, runs: dict[str, Run]) -> None:
    with pytest.raises(CommandError, match="1 of their runs have not ended"):
        call_command("erase_person", "dana", yes=True)
    assert User.objects.get(id=dana.id).is_active
    with pytest.raises(CommandError, match="no user"):
        call_command("erase_person", "nobody")


# --- spans -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[tuple[str, list[dict[str, Any]], list[int]]]:
    got: list[dict[str, Any]] = []
    answers = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            got.append({"path": self.path, "body": body, "authorization": self.headers["authorization"]})
            self.send_response(answers[0])
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got, answers
    server.shutdown()
    server.server_close()
    thread.join()


def test_ended_runs_leave_as_spans_once(
    runs: dict[str, Run], collector: tuple[str, list[dict[str, Any]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, got, answers = collector
    Run.objects.filter(id=runs["new"].id).update(ended_at=timezone.now())
    assert otel_export.export_due() == 0  # without an endpoint
    answers[0] = 503
    with override_settings(OTEL_EXPORTER_OTLP_ENDPOINT=f"{url}/"):
        assert otel_export.export_due() == 0
        row = SpanExport.objects.get()
        assert (row.run_id, row.sent_at, row.attempts) == (runs["new"].id, None, 1)
        answers[0] = 200
        monkeypatch.setattr(otel_export, "SPANS_AT_ONCE", 1)
        with time_machine.travel(timezone.now() + dt.timedelta(minutes=1), tick=False):
            assert otel_export.export_due() == 1
            assert otel_export.export_due() == 0
    assert got[-1]["path"] == "/v1/traces"
    assert len(got) == 1 + 2  # the run's span and the step's, each in a request of its own
    names = [part["body"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] for part in got[1:]]
    assert names == ["invoke_agent Refund desk", "chat claude-sonnet-5-5"]
    assert SpanExport.objects.get().sent_at is not None


def test_a_run_that_is_being_sent_is_not_sent_by_another_worker(
    runs: dict[str, Run], collector: tuple[str, list[dict[str, Any]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long run takes longer than the wait before a second try."""
    url, got, _ = collector
    Run.objects.filter(id=runs["new"].id).update(ended_at=timezone.now())
    now = timezone.now()
    send = otel_export._post

    def slowly(client: Any, part: dict[str, Any]) -> None:
        with time_machine.travel(now + dt.timedelta(minutes=2), tick=False):
            assert otel_export.export_due() == 0
        send(client, part)

    monkeypatch.setattr(otel_export, "_post", slowly)
    with override_settings(OTEL_EXPORTER_OTLP_ENDPOINT=url):
        assert otel_export.export_due() == 1
    assert len(got) == 1
    assert SpanExport.objects.get().attempts == 1


def test_the_collector_is_told_who_sends_and_nobody_else_is(
    runs: dict[str, Run],
    collector: tuple[str, list[dict[str, Any]], list[int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    url, got, answers = collector
    Run.objects.filter(id=runs["new"].id).update(ended_at=timezone.now())
    answers[0] = 401
    headers = "Authorization=Bearer%20s3cret%2C1, x-scope=team,content-type=text/html"
    with (
        caplog.at_level("DEBUG"),
        override_settings(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_HEADERS=headers),
    ):
        assert otel_export.export_due() == 0
        assert got[-1]["authorization"] == "Bearer s3cret,1"
        assert "401" in caplog.text
        assert "s3cret" not in caplog.text
    with override_settings(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_HEADERS="s3cret"):
        with time_machine.travel(timezone.now() + dt.timedelta(minutes=1), tick=False):
            assert otel_export.export_due() == 0
        assert "s3cret" not in caplog.text
    assert len(got) == 1


def test_a_collector_that_is_away_is_given_up_in_the_end(runs: dict[str, Run]) -> None:
    Run.objects.filter(id=runs["new"].id).update(ended_at=timezone.now())
    now = timezone.now()
    with override_settings(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9"):
        for hour in range(0, 60, 4):
            with time_machine.travel(now + dt.timedelta(hours=hour), tick=False):
                assert otel_export.export_due() == 0
    row = SpanExport.objects.get()
    assert (row.attempts, row.due_at) == (otel_export.MOST_TRIES, None)
    assert Action.objects.count() == 1
    assert make_team("other", "Other").retention_days is None
