"""What breaks around a run: connections of tools, the model, Redis, the broker, the database, and odd characters."""

from __future__ import annotations

import datetime as dt
import threading
import time
from decimal import Decimal

import pytest
import redis
from celery import Celery
from django.db import IntegrityError, OperationalError
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from accounts.access import Access
from approvals.models import Verdict
from runs import commands, doorbell, leases, lifecycle, live, settled, worker
from runs.engine.ports import ToolConnectionLost, ToolTimeout, ToolUnavailable
from runs.engine.types import Mode
from runs.models import Action, Run
from runs.samples.simulated.reply import Reply, ToolCall
from runs.storable import storable
from runs.store import DbJournal
from tests.flows.conftest import Model, applied, assert_sound, decide, keys, tool_results
from tests.flows.shop import LocalShop
from tests.running import (
    NOTE,
    READ,
    REFUND,
    advance,
    launch,
    open_batch,
    results_sent,
    through_tries,
    tool,
    uses,
    without_breakers,
)

READS = tool(READ, order="48213")
NOTES = tool(NOTE, customer="C-20871", changes={"notes": "left for a person"})
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")


# --- tools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ToolConnectionLost("gone"), ToolTimeout("slow")], ids=["lost", "timeout"])
def test_an_answer_that_was_lost_is_asked_for(crew: Access, shop: LocalShop, model: Model, error: Exception) -> None:
    """The shop can say whether it happened, so nobody has to be asked."""
    shop.changes["idempotent"] = False
    shop.after["update_customer"].append(error)
    model.says(uses(NOTES), "Done.")
    run = advance(launch(crew))
    assert run.status == "completed"
    assert shop.effects() == ["update_customer"]
    assert "It happened" in tool_results(model.calls[-1])[0]["content"]
    assert_sound(run)


@pytest.mark.parametrize(
    ("verdict", "status", "words"),
    [
        (Verdict.HAPPENED, "succeeded", "A person confirmed that this happened."),
        (Verdict.DID_NOT_HAPPEN, "failed", "A person confirmed that this did not happen."),
    ],
)
@pytest.mark.parametrize("mode", [Mode.BATCH, Mode.INTERACTIVE])
def test_what_nobody_can_know_a_person_settles(
    crew: Access, shop: LocalShop, model: Model, mode: Mode, verdict: Verdict, status: str, words: str
) -> None:
    shop.changes, shop.outcome = {"idempotent": False}, "unknown"
    shop.after["update_customer"].append(ToolConnectionLost("gone"))
    model.says(uses(NOTES), uses(READS), "Done.")
    run = advance(launch(crew, mode))
    assert run.status == "waiting"
    action = Action.objects.get()
    assert (action.status, action.kind) == ("unknown", "unknown")
    assert open_batch(run).actions.get() == action
    assert len(model.calls) == 1, "nothing goes on before it is known"

    assert applied(decide(crew, run, verdict))
    run = advance(run)
    action.refresh_from_db()
    assert (run.status, action.status) == ("completed", status)
    assert shop.executed == ["update_customer", "get_order"], "never called again"
    assert words in tool_results(model.calls[1])[0]["content"]
    assert_sound(run)


def test_an_unknown_one_holds_back_the_others(crew: Access, shop: LocalShop, model: Model) -> None:
    shop.changes, shop.outcome = {"idempotent": False}, "unknown"
    shop.after["issue_refund"].append(ToolConnectionLost("gone"))
    model.says(uses(REFUNDS, NOTES), "Both wait.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    run = advance(run)
    assert (run.status, shop.effects()) == ("waiting", ["issue_refund"])
    assert applied(decide(crew, run, Verdict.HAPPENED))
    run = advance(run)
    assert (run.status, shop.effects()) == ("completed", ["issue_refund", "update_customer"])
    assert [line["outcome"] for line in results_sent(model.calls[-1])] == ["succeeded", "succeeded"]
    assert_sound(run)


def test_cancelling_with_an_unknown_one_leaves_it_unknown(crew: Access, shop: LocalShop, model: Model) -> None:
    shop.changes, shop.outcome = {"idempotent": False}, "unknown"
    shop.after["update_customer"].append(ToolConnectionLost("gone"))
    model.says(uses(NOTES), "Done.")
    run = advance(launch(crew))
    run = commands.cancel(crew, run.id)
    assert Action.objects.get().status == "unknown"
    assert_sound(run)


def test_a_tool_that_is_away_is_told_to_the_model(crew: Access, shop: LocalShop, model: Model) -> None:
    def away(name: str) -> None:
        raise ToolUnavailable("the server does not start")

    shop.before = away
    model.says(uses(READS), uses(NOTES), "Then not.")
    run = through_tries(advance(launch(crew)))
    assert run.status == "completed"
    assert shop.effects() == []
    for result in tool_results(model.calls[-1]):
        assert result["is_error"]
        assert "The tool is unavailable" in result["content"]
    assert Action.objects.get().status == "failed"
    assert_sound(run)


def test_a_bug_in_an_adapter_ends_the_run_and_claims_nothing(crew: Access, shop: LocalShop, model: Model) -> None:
    shop.after["update_customer"].append(RuntimeError("a bug"))
    model.says(uses(NOTES), "Done.")
    run = advance(launch(crew))
    assert (run.status, run.stop_reason) == ("failed", "internal_error")
    assert "RuntimeError" in run.stop_detail
    assert Action.objects.get().status == "unknown", "it may have happened"
    assert_sound(run)


# --- the model -------------------------------------------------------------------------------------------------------


def test_a_busy_model_is_tried_again_when_it_is_due(
    crew: Access, shop: LocalShop, model: Model, rings: list[str]
) -> None:
    model.server.respond = lambda _: Reply.error(529, retry_after=30)
    run = advance(launch(crew))
    assert run.status == "queued"
    assert run.due_at is not None
    assert 25 < (run.due_at - timezone.now()).total_seconds() <= 30
    assert advance(run).model_calls == 1, "not before it is due"
    rings.clear()
    worker.sweep()
    assert rings == []
    Run.objects.update(due_at=timezone.now(), rung_at=None, created_at=timezone.now() - dt.timedelta(seconds=5))
    worker.sweep()
    assert rings == [str(run.id)]
    model.says("Done.")
    without_breakers()
    run = advance(run)
    assert (run.status, keys(run)) == ("completed", ["model:1:failed:1", "model:1", "result"])
    assert_sound(run)


def test_a_model_that_refuses_ends_the_run(crew: Access, shop: LocalShop, model: Model) -> None:
    model.server.respond = lambda _: Reply.error(401, message="invalid x-api-key")
    run = advance(launch(crew))
    assert (run.status, run.stop_reason) == ("failed", "model_error")
    assert "invalid x-api-key" in run.stop_detail
    assert_sound(run)


def test_no_model_at_all_is_waited_for(crew: Access, shop: LocalShop, settings: object) -> None:
    settings.SIMULATED_MODEL_PORT_FILE = "/nowhere"  # type: ignore[attr-defined]
    run = advance(launch(crew))
    assert run.status == "queued"
    assert run.due_at is not None
    assert "the simulated model is not running" in run.steps.get().summary


# --- characters ------------------------------------------------------------------------------------------------------


def test_characters_that_no_database_holds_are_replaced(crew: Access, shop: LocalShop, model: Model) -> None:
    odd = ToolCall(name="shop__get_order", input={"order": "48213", "reasoning": "a\x00b", "confidence": 0.9})
    model.says(uses(odd), "Do\x00ne.")
    shop.answers["get_order"] = {"note\x00": "half a \ud800 pair", "weight": float("nan")}
    run = advance(launch(crew))
    assert (run.status, run.result) == ("completed", "Do\ufffdne.")
    payload = run.steps.get(kind="tool").payload
    assert payload.reasoning == "a\ufffdb"
    assert payload.output == {"note\ufffd": "half a \ufffd pair", "weight": "nan"}
    assert "half a \ufffd pair" in tool_results(model.calls[-1])[0]["content"]
    assert_sound(run)


def test_storable() -> None:
    given = {"a\x00": [1, 2.5, float("nan"), float("-inf"), None, True, ("x", "\ud83d\ude00")], "é🎉": "\udc00"}
    assert storable(given) == {"a\ufffd": [1, 2.5, "nan", "-inf", None, True, ["x", "😀"]], "é🎉": "\ufffd"}
    assert storable(Decimal("1.5")) == Decimal("1.5")


# --- Redis, the broker, the database ---------------------------------------------------------------------------------


@pytest.fixture
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = redis.Redis.from_url("redis://127.0.0.1:1/0", socket_timeout=1, socket_connect_timeout=1)
    monkeypatch.setattr(live, "_client", nowhere)
    monkeypatch.setattr(live, "_pause", live._Pause())


def test_without_redis_nothing_is_lost(crew: Access, shop: LocalShop, model: Model, no_redis: None) -> None:
    model.says(uses(READS), uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    run = advance(run)
    assert run.status == "completed"
    assert shop.effects() == ["issue_refund"]
    assert live.read_in_flight(run.id) is None
    assert_sound(run)


def test_redis_that_is_away_is_not_asked_for_each_word(no_redis: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def away(**how: object) -> None:
        asked.append(how)
        raise redis.ConnectionError("nobody there")

    monkeypatch.setattr(live._client, "pipeline", away)
    for seq in range(50):
        live.ring("a-run", seq)
    assert len(asked) == 1


def test_a_launch_while_the_broker_is_down_stands_and_is_rung_later(
    crew: Access, shop: LocalShop, model: Model, rings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runs.doorbell.current_app.send_task", nobody_there)
        run = launch(crew)
    assert (run.status, run.rung_at) == ("queued", None)
    worker.sweep()
    assert rings == [], "a launch has a second to ring for itself"
    Run.objects.update(created_at=timezone.now() - dt.timedelta(seconds=2))
    worker.sweep()
    assert rings == [str(run.id)]
    assert advance(run).status == "completed"


def nobody_there(*_: object) -> None:
    raise BrokerError("the broker is away")


def test_a_broker_that_is_really_away_does_not_hold_up_a_launch(
    crew: Access, shop: LocalShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The product's own Celery settings against a port where nobody listens."""
    app = Celery("away", set_as_current=False)
    app.config_from_object("django.conf:settings", namespace="CELERY")
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(doorbell, "current_app", app)
    began = time.monotonic()
    run = launch(crew)
    took = time.monotonic() - began
    assert (run.status, run.rung_at) == ("queued", None)
    assert took < 3


def test_a_database_that_is_away_costs_one_try(
    crew: Access, shop: LocalShop, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.says(uses(READS), "Done.")
    run = launch(crew)
    commit = DbJournal._commit

    def away(self: DbJournal, step: object) -> object:
        if self.run.last_seq == 1:
            raise OperationalError("the connection was closed")
        return commit(self, step)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DbJournal, "_commit", away)
        run = advance(run)
    assert (run.status, run.last_seq) == ("running", 1)
    Run.objects.update(lease_until=timezone.now())
    assert leases.free_lost() == [run.id]
    run = advance(run)
    assert run.status == "completed"
    assert len(model.calls) == 2, "the recorded call is not made again"
    assert_sound(run)


def test_what_the_database_refuses_is_not_tried_for_ever(
    crew: Access, shop: LocalShop, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: DbJournal, step: object) -> None:
        raise IntegrityError("this can never be stored")

    monkeypatch.setattr(DbJournal, "_commit", refused)
    run = advance(launch(crew))
    assert (run.status, run.stop_reason) == ("failed", "internal_error")


# --- the sweeper -----------------------------------------------------------------------------------------------------


def test_the_sweeper_rings_for_everything_that_could_go_on(crew: Access, shop: LocalShop, rings: list[str]) -> None:
    runs = [launch(crew) for _ in range(8)]
    unheard, heard, lost, decided, asked, wished, paused, due_later = runs
    long_ago = timezone.now() - dt.timedelta(minutes=1)
    Run.objects.update(created_at=long_ago, rung_at=long_ago)
    Run.objects.filter(id=heard.id).update(rung_at=timezone.now())
    Run.objects.filter(id=lost.id).update(status="running", lease_owner="x:1:1", lease_until=long_ago)
    Run.objects.filter(id=decided.id).update(status="waiting", waiting_since=long_ago)
    Run.objects.filter(id=asked.id).update(status="waiting", waiting_since=long_ago)
    asked.batches.create(key="queue:1", number=1, title="1 thing", expires_at=timezone.now())
    Run.objects.filter(id=wished.id).update(status="waiting", waiting_since=long_ago, wish="cancel")
    wished.batches.create(key="queue:1", number=1, title="1 thing", expires_at=timezone.now())
    assert lifecycle.request_pause(paused.id)
    Run.objects.filter(id=due_later.id).update(due_at=timezone.now() + dt.timedelta(minutes=1))
    rings.clear()

    worker.sweep()

    assert sorted(rings) == sorted(str(run.id) for run in (unheard, lost, decided))
    statuses = dict(Run.objects.values_list("id", "status"))
    assert [statuses[run.id] for run in runs] == [
        "queued",
        "queued",
        "queued",
        "queued",
        "waiting",
        "cancelled",
        "paused",
        "queued",
    ]
    assert Run.objects.get(id=decided.id).wait_ms >= 60_000
    rings.clear()
    worker.sweep()
    assert rings == [], "each was rung a moment ago"


def test_the_pulse_survives_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[str] = []

    def away() -> None:
        beats.append("away")
        raise OperationalError("away")

    def broken() -> None:
        beats.append("broken")
        raise RuntimeError("a bug in a chore")

    def enough() -> None:
        if beats.count("broken") > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(worker, "TICK_S", 0.001)
    monkeypatch.setattr(worker, "close_old_connections", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        worker._run([(0, away), (0, broken), (0, enough)])
    assert beats == ["away", "broken"] * 2


# --- many that wait --------------------------------------------------------------------------------------------------


def test_two_hundred_runs_that_wait_are_rows_and_nothing_else(crew: Access, shop: LocalShop, model: Model) -> None:
    """Parking returns the worker's thread, holds no lease, and the next run starts at once."""
    model.says(uses(REFUNDS), "One waits.", "Done.")
    first = advance(launch(crew))
    assert first.status == "waiting"
    before = threading.active_count()
    template = Run.objects.get(id=first.id)
    fields = {f.name: getattr(template, f.name) for f in Run._meta.fields if f.name not in ("id", "number")}
    Run.objects.bulk_create([Run(number=1000 + number, **fields) for number in range(199)])
    for run in Run.objects.exclude(id=first.id):
        run.batches.create(key="queue:1", number=1, title="1 thing", expires_at=timezone.now() + dt.timedelta(hours=1))
    began = time.monotonic()
    worker.sweep()
    model.says("At once.")
    new = advance(launch(crew))
    took = time.monotonic() - began

    assert new.status == "completed"
    assert took < 3
    assert Run.objects.filter(status="waiting", lease_owner="").count() == 200
    assert leases._owners() == []
    assert threading.active_count() <= before + 1


def test_a_lost_wish_is_swept_up(crew: Access, shop: LocalShop, model: Model) -> None:
    model.says(uses(REFUNDS), "One waits.", "Done.")
    run = advance(launch(crew))
    Run.objects.filter(id=run.id).update(wish="cancel")
    worker.sweep()
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert not settled.cancel_if_wished(run.id)
    assert_sound(run)
