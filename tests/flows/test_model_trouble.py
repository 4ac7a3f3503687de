"""The model's provider fails in whole runs: parked with a due time, other models, people, replies that were lost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from accounts import receipts
from accounts.access import Access
from approvals.models import Verdict
from runs import breakers, commands
from runs.engine.trouble import MOST_TRIES, TRY_AGAIN
from runs.errors import Conflict
from runs.models import Action, Breaker, Run
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.server import FakeMessagesServer
from tests.flows.conftest import Model, applied, assert_sound, decide, keys
from tests.flows.shop import LocalShop
from tests.running import READ, add_agent, advance, launch, on, through_tries, tool, turns, uses, without_breakers

READS = tool(READ, order="48213")
MAIN, SPARE = "claude-sonnet-5-5", "claude-haiku-5-5"
BROKEN = {
    "429": Reply.error(429),
    "500": Reply.error(500),
    "503": Reply.error(503),
    "529": Reply.error(529),
    "dropped": Reply(drop=True),
    "html": Reply.raw("<html>busy</html>"),
    "no json": Reply.raw("", content_type="application/json"),
    "cut": Reply(text="Half of it.", cut_after=0),
    "overloaded in the middle": Reply(text="Half of it.", error_after=0, error_type="overloaded_error"),
    "without an end": Reply(text="All of it.", omit_stop=True),
    "without a reason": Reply(text="All of it.", stop_reason=""),
}
MAY_BE_BILLED = {"dropped", "cut", "overloaded in the middle", "without an end"}


@pytest.fixture(autouse=True)
def another_process() -> Iterator[None]:
    breakers.forget()
    yield
    breakers.forget()


@pytest.fixture
def provider(crew: Access, shop: LocalShop, tmp_path: Path) -> Iterator[Model]:
    """A server that is paid for: the model of the request answers, at its price."""
    add_agent(crew.team, model=MAIN, fallback_models=[SPARE])
    with (
        FakeMessagesServer(turns("Done."), echo_model=True) as server,
        override_settings(SIMULATED=False, ANTHROPIC_BASE_URL=server.url, ANTHROPIC_API_KEY="test"),
    ):
        yield Model(server)


def once(broken: Reply, *then: Reply | str) -> Any:
    line, respond = [broken], turns(*then)
    return lambda body: line.pop() if line else respond(body)


def away(*models: str) -> Any:
    def respond(body: JsonObject) -> Reply:
        return Reply.error(529) if body["model"] in models else Reply(text=f"Done by {body['model']}.")

    return respond


# --- one failure -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", BROKEN)
def test_one_failure_parks_the_run_and_frees_its_worker(crew: Access, provider: Model, how: str) -> None:
    provider.server.respond = once(BROKEN[how], uses(READS), "Done.")

    run = advance(launch(crew))
    assert (run.status, run.lease_owner) == ("queued", "")
    assert run.due_at is not None
    failed = run.steps.get(key="model:1:failed:1")
    assert (failed.cost_usd is None) is (how in MAY_BE_BILLED)
    assert ("may have been billed" in failed.summary) is (how in MAY_BE_BILLED)
    if how == "without a reason":
        assert failed.cost_usd == run.cost_usd > 0, "the reply came, and what it used was reported"
        assert failed.summary.endswith("The reply came to its end and is billed.")
    run = through_tries(run)

    assert (run.status, run.unpriced_steps) == ("completed", int(how in MAY_BE_BILLED))
    assert_sound(run)


@pytest.mark.parametrize("after", [3600.0])
def test_an_hour_is_a_due_time_not_a_sleep(crew: Access, provider: Model, after: float) -> None:
    add_agent(crew.team, model=MAIN)
    provider.server.respond = once(Reply.error(429, retry_after=after), "Done.")

    run = advance(launch(crew, limits={"max_seconds": 900}))

    assert run.status == "queued"
    assert run.due_at is not None
    assert run.due_at > timezone.now() + dt.timedelta(seconds=after - 60)
    other = advance(launch(crew))
    assert (other.status, len(provider.calls)) == ("queued", 1), "the provider's word holds for every run"
    Breaker.objects.update(until=timezone.now())
    breakers.forget()
    assert on(run).status == "completed"


def test_who_does_not_want_to_wait_has_it_tried_now(crew: Access, provider: Model) -> None:
    add_agent(crew.team, model=MAIN)
    provider.server.respond = once(Reply.error(429, retry_after=3600), "Done.")
    run = advance(launch(crew, limits={"max_seconds": 900}))

    run = commands.resume(crew, run.id)

    assert (run.status, run.due_at) == ("queued", None)
    assert on(run).status == "completed"
    assert run.steps.count() == 3
    with pytest.raises(Conflict):
        commands.resume(crew, run.id)


# --- other models ----------------------------------------------------------------------------------------------------
def test_another_model_goes_on_and_is_what_is_paid(crew: Access, provider: Model) -> None:
    provider.server.respond = away(MAIN)

    run = through_tries(advance(launch(crew)))

    assert (run.status, run.result) == ("completed", f"Done by {SPARE}.")
    assert keys(run) == ["model:1:failed:1", "model:1:failed:2", f"model:1:model:{SPARE}", "model:1", "result"]
    step = run.steps.get(key="model:1")
    assert (step.model, step.cost_usd is not None) == (SPARE, True)
    assert step.price_id.endswith(SPARE)
    assert_sound(run)


def test_once_the_trouble_is_known_no_run_runs_into_it(crew: Access, provider: Model) -> None:
    provider.server.respond = away(MAIN)
    for _ in range(3):
        through_tries(advance(launch(crew)))
    breakers.forget()
    before = [body["model"] for body in provider.calls].count(MAIN)

    run = advance(launch(crew))

    assert (run.status, run.result) == ("completed", f"Done by {SPARE}.")
    assert [body["model"] for body in provider.calls].count(MAIN) == before
    assert Breaker.objects.get(key__endswith=MAIN).state == "open"


# --- people ----------------------------------------------------------------------------------------------------------
def exhausted(crew: Access, provider: Model) -> Run:
    provider.server.respond = away(MAIN, SPARE)
    run = advance(launch(crew))
    for _ in range(40):
        if run.status != "queued":
            break
        without_breakers()
        run = on(run)
    return run


def test_when_no_model_answers_a_person_is_asked(crew: Access, provider: Model) -> None:
    run = exhausted(crew, provider)
    assert run.status == "waiting"
    question = Action.objects.get(run=run)
    assert (question.kind, question.args["options"]) == ("question", [TRY_AGAIN])
    assert len(question.args["tried"]) == 2
    assert len(provider.calls) == 2 + MOST_TRIES

    provider.server.respond = turns("Done.")
    without_breakers()
    assert applied(decide(crew, run, Verdict.ANSWER, answer=TRY_AGAIN))
    run = advance(run)

    assert (run.status, run.result) == ("completed", "Done.")
    assert receipts.verify(run.team) == []
    assert_sound(run)


def test_a_person_stops_what_no_model_can_do(crew: Access, provider: Model) -> None:
    run = exhausted(crew, provider)
    assert applied(decide(crew, run, Verdict.REJECT, note="Tomorrow"))

    run = through_tries(advance(run))

    assert (run.status, run.stop_reason) == ("stopped", "escalation_declined")
    assert_sound(run)


def test_what_the_provider_refuses_ends_the_run_at_once(crew: Access, provider: Model) -> None:
    provider.server.respond = lambda body: Reply.error(401)

    run = advance(launch(crew))

    assert (run.status, run.stop_reason, len(provider.calls)) == ("failed", "model_error", 1)
    assert_sound(run)
