"""The judge: known-good and known-bad verdicts, what they mark, and that a failing judge fails no run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runs.engine.evaluators import EVALUATION_SCHEMA, MOST_TEXT, evaluation_request, read_evaluation
from runs.engine.types import AgentSpec


def verdict(**some: Any) -> str:
    good = {"score": 0.8, "progress": True, "sentence": "It looked.", "plan_steps_done": [], "assumptions": []}
    return json.dumps({**good, **some})


# --- reading ---------------------------------------------------------------------------------------------------------
GOOD = [
    (verdict(), 0.8),
    (verdict(score=0), 0.0),
    (verdict(score=1), 1.0),
    (verdict(progress="yes", sentence=None, plan_steps_done=None, assumptions="none"), 0.8),
    ('{"score": 0.25}', 0.25),
]
BAD = [
    "",
    "Looks fine to me.",
    "[]",
    "0.8",
    "{}",
    verdict(score="0.8"),
    verdict(score=True),
    verdict(score=None),
    verdict(score=-0.01),
    verdict(score=1.01),
    verdict(score=float("nan")),
    verdict(score=float("inf")),
    verdict(score=10**400),
    '{"score": 0.8',
    "[" * 100_000,
]


@pytest.mark.parametrize(("text", "score"), GOOD)
def test_good_verdicts(text: str, score: float) -> None:
    assert read_evaluation(text).score == score


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:30])
def test_bad_verdicts(text: str) -> None:
    with pytest.raises(ValueError):
        read_evaluation(text)


def test_only_true_is_progress() -> None:
    assert [read_evaluation(verdict(progress=value)).progress for value in (True, False, "true", 1)] == [
        True,
        False,
        False,
        False,
    ]


def test_what_is_no_mark_is_left_out() -> None:
    marks = [
        {"step": 0, "assumption": 0, "status": "held"},
        {"step": 0, "assumption": 0, "status": "maybe"},
        {"step": "0", "assumption": 0, "status": "held"},
        {"step": True, "assumption": 0, "status": "held"},
        {"assumption": 0, "status": "held"},
        "held",
    ]

    read = read_evaluation(verdict(plan_steps_done=[0, "1", True, 2.0, 3], assumptions=marks, sentence="x" * 900))

    assert read.plan_steps_done == (0, 3)
    assert read.assumptions == (marks[0],)
    assert len(read.sentence) == 500


def test_the_judge_is_shown_a_bounded_part_and_told_so() -> None:
    agent = AgentSpec(slug="desk", name="Desk", version=1, model="fake")

    request = evaluation_request(agent, "Help {Ana}", None, {"output": "y" * 2 * MOST_TEXT})

    text = request.messages[0]["content"][0]["text"]
    assert "Help {Ana}" in text
    assert "more characters not shown" in text
    assert len(text) < MOST_TEXT + 1000
    assert request.output_schema == EVALUATION_SCHEMA
