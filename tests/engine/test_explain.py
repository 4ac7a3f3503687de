"""Why a run stopped, in one sentence."""

from __future__ import annotations

import pytest

from runs.engine.explain import explain
from runs.engine.types import JsonObject, Spent, StopReason


def plan(*statuses: str) -> JsonObject:
    return {"steps": [{"title": f"Step {n}", "status": status} for n, status in enumerate(statuses, 1)]}


@pytest.mark.parametrize(
    ("reason", "detail", "sentence"),
    [
        (StopReason.DONE, "", "The agent finished."),
        (StopReason.CANCELLED, "whatever", "A person cancelled this run."),
        (StopReason.MAX_STEPS, "the limit of 3 steps is reached", "Stopped: the limit of 3 steps is reached."),
        (StopReason.MAX_COST, "it is used up.", "Stopped: it is used up."),
        (StopReason.MODEL_ERROR, "too busy", "Failed: too busy."),
        (StopReason.INTERNAL_ERROR, "KeyError", "Failed inside agentsite: KeyError."),
        (StopReason.CONTENT_FILTER, "it refused", "Stopped: it refused."),
        (StopReason.LOOP, "", "Stopped: loop."),
        (StopReason.DIMINISHING_RETURNS, "", "Stopped: diminishing returns."),
        (StopReason.TOOL_ERROR, "{0} {detail}", "Failed: {0} {detail}."),
    ],
)
def test_the_sentence(reason: StopReason, detail: str, sentence: str) -> None:
    assert explain(reason, detail, None, Spent()) == sentence


@pytest.mark.parametrize("reason", list(StopReason))
def test_every_reason_has_a_sentence(reason: StopReason) -> None:
    sentence = explain(reason, "", plan("done"), Spent())

    assert sentence.endswith(".")
    assert ".." not in sentence
    assert "{" not in sentence


@pytest.mark.parametrize(
    ("statuses", "middle"),
    [
        (("done", "running", "not_started"), "1 of 3 plan steps is finished, “Step 2” was begun, 1 is untouched."),
        (("done", "waiting"), "1 of 2 plan steps is finished, “Step 2” was begun, 0 are untouched."),
        (("not_started", "not_started"), "0 of 2 plan steps are finished, 2 are untouched."),
    ],
)
def test_how_far_the_plan_got(statuses: tuple[str, ...], middle: str) -> None:
    sentence = explain(StopReason.MAX_COST, "it is used up", plan(*statuses), Spent())

    assert sentence == f"Stopped: it is used up. {middle}"


def test_a_finished_run_does_not_count_its_plan() -> None:
    assert explain(StopReason.DONE, "", plan("running"), Spent()) == "The agent finished."
