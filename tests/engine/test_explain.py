"""Why a run stopped, in one sentence."""

from __future__ import annotations

import pytest

from runs.engine.explain import Signs, explain
from runs.engine.types import JsonObject, StopReason


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
    assert explain(reason, detail, None) == sentence


@pytest.mark.parametrize("reason", list(StopReason))
def test_every_reason_has_a_sentence(reason: StopReason) -> None:
    sentence = explain(reason, "", plan("done"))

    assert sentence.endswith(".")
    assert ".." not in sentence
    assert "{" not in sentence


@pytest.mark.parametrize(
    ("statuses", "middle"),
    [
        (
            ("done", "running", "not_started"),
            "finished: “Step 1”; half done: “Step 2”; untouched: “Step 3”.",
        ),
        (("done", "waiting"), "finished: “Step 1”; half done: “Step 2”."),
        (("not_started",) * 5, "untouched: “Step 1”, “Step 2”, “Step 3” and 2 more."),
        (("done", "changed", "running"), "finished: “Step 1”; half done: “Step 3”; not done as planned: “Step 2”."),
    ],
)
def test_how_far_the_plan_got(statuses: tuple[str, ...], middle: str) -> None:
    sentence = explain(StopReason.MAX_COST, "it is used up", plan(*statuses))

    assert sentence == f"Stopped: it is used up; {middle}"


def test_without_a_plan_calls_are_counted() -> None:
    signs = Signs(calls_done=1, calls_not_done=2)
    sentence = explain(StopReason.MAX_STEPS, "x", None, signs)
    assert sentence == "Stopped: x; finished: 1 tool call; not done: 2 tool calls."


def test_a_finished_run_says_only_what_was_not_done_as_planned() -> None:
    assert explain(StopReason.DONE, "", plan("running")) == "The agent finished."
    assert explain(StopReason.DONE, "", plan("done", "changed")) == (
        "The agent finished; not done as planned: “Step 2”."
    )


def test_titles_are_named_short_and_without_their_full_stop() -> None:
    long: JsonObject = {"steps": [{"title": "Look.  it\nup.", "status": "done"}, {"title": "x" * 90, "status": "done"}]}
    assert explain(StopReason.LOOP, "round and round", long) == (
        f"Stopped: round and round; finished: “Look. it up”, “{'x' * 59}…”."
    )


LONG_TASK = "Please work through all of the open refund requests of today."


@pytest.mark.parametrize(
    ("signs", "suspect"),
    [
        (
            Signs(task=LONG_TASK, suspicious=["shop.look", "shop.look", "web.fetch"]),
            "a tool result was trusted too much (shop.look and web.fetch gave text that reads like an instruction)",
        ),
        (Signs(task=LONG_TASK, prompt_tokens=80_000), "the context grew too large (80,000 tokens in one prompt)"),
        (
            Signs(task=LONG_TASK, prompt_tokens=9_000, was_compacted=True),
            "the context grew too large (9,000 tokens in one prompt)",
        ),
        (Signs(task="Fix it."), "the task is ambiguous (it has only 2 words)"),
        (Signs(task=LONG_TASK, without_progress=2), "the task is ambiguous (no step towards it was finished)"),
        (Signs(task=LONG_TASK, revisions=2), "the task is ambiguous (no step towards it was finished)"),
        (
            Signs(task="Fix it.", suspicious=["a"], prompt_tokens=70_000),
            "a tool result was trusted too much (a gave text that reads like an instruction) and the context grew too "
            "large (70,000 tokens in one prompt) and the task is ambiguous (it has only 2 words)",
        ),
    ],
)
def test_the_usual_suspects(signs: Signs, suspect: str) -> None:
    assert explain(StopReason.MAX_STEPS, "x", plan("running"), signs) == (
        f"Stopped: x; half done: “Step 1”; perhaps because {suspect}."
    )


@pytest.mark.parametrize(
    ("reason", "shown", "signs"),
    [
        (StopReason.MAX_STEPS, plan("running"), Signs(task=LONG_TASK, prompt_tokens=59_999, without_progress=1)),
        (StopReason.MAX_STEPS, plan("done"), Signs(task="Fix it.", without_progress=3)),
        (StopReason.MODEL_ERROR, None, Signs(task="Fix it.", suspicious=["a"])),
        (StopReason.CANCELLED, None, Signs(task="Fix it.", suspicious=["a"])),
        (StopReason.DONE, None, Signs(task="Fix it.", prompt_tokens=900_000)),
        (StopReason.MAX_STEPS, None, Signs()),
    ],
)
def test_nobody_is_suspected_without_a_sign(reason: StopReason, shown: JsonObject | None, signs: Signs) -> None:
    assert "perhaps" not in explain(reason, "x", shown, signs)


@pytest.mark.parametrize(
    ("signs", "said"),
    [
        (
            Signs(calls_done=2, calls_begun=1, calls_not_done=3),
            "finished: 2 tool calls; half done: 1 tool call; not done: 3 tool calls",
        ),
        (Signs(task="Refund it.", proposed=1), "untouched: 1 proposed action"),
        (Signs(task="Refund it."), "untouched: the whole task, for no tool was called"),
        (Signs(task="Refund it.", calls_begun=1), "half done: 1 tool call"),
    ],
)
def test_without_a_plan_calls_say_how_far_it_got(signs: Signs, said: str) -> None:
    assert explain(StopReason.CANCELLED, "", None, signs) == f"A person cancelled this run; {said}."
