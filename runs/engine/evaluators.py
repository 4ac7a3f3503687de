"""Judging steps and answers: a separate structured call. A judge that fails never fails the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from runs.engine.calls import read_json, usable_number
from runs.engine.planning import prompt
from runs.engine.types import AgentSpec, JsonObject, ModelRequest

STATUSES = ("held", "did_not_hold", "not_checked")
EVALUATION_SCHEMA: JsonObject = {
    "title": "Evaluation",
    "type": "object",
    "properties": {
        "score": {"type": "number"},
        "progress": {"type": "boolean"},
        "sentence": {"type": "string"},
        "plan_steps_done": {"type": "array", "items": {"type": "integer"}},
        "assumptions": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "step": {"type": "integer"},
                    "assumption": {"type": "integer"},
                    "status": {"type": "string", "enum": list(STATUSES)},
                },
                "required": ["step", "assumption", "status"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["score", "progress", "sentence", "plan_steps_done", "assumptions"],
    "additionalProperties": False,
}
MOST_TEXT = 12_000
PATIENCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    score: float
    progress: bool
    sentence: str
    plan_steps_done: tuple[int, ...]
    assumptions: tuple[JsonObject, ...]


def evaluation_request(agent: AgentSpec, task: str, plan: JsonObject | None, happened: Any) -> ModelRequest:
    shown = json.dumps(happened, ensure_ascii=False, default=str)
    if len(shown) > MOST_TEXT:
        shown = f"{shown[:MOST_TEXT]} … ({len(shown) - MOST_TEXT} more characters not shown)"
    text = prompt("evaluate").format(task=task[:MOST_TEXT], plan=json.dumps(plan or {}), happened=shown)
    return ModelRequest(
        model=agent.judge_model or agent.model,
        system="You judge the work of an agent. You answer with JSON only.",
        messages=({"role": "user", "content": [{"type": "text", "text": text}]},),
        max_tokens=1024,
        output_schema=EVALUATION_SCHEMA,
        goes_on=False,
    )


class Progress:
    """Counts evaluations in a row that saw no progress. What is no verdict counts neither way."""

    def __init__(self) -> None:
        self.without = 0

    def saw(self, verdict: Evaluation) -> str:
        """Why the run should stop early; empty as long as there is hope."""
        self.without = 0 if verdict.progress else self.without + 1
        if self.without < PATIENCE:
            return ""
        said = f"; the last one says: {verdict.sentence.rstrip('.')}" if verdict.sentence else ""
        return f"{PATIENCE} evaluations in a row saw no progress{said}"


def read_evaluation(text: str) -> Evaluation:
    """Raises ValueError for anything but the shape that was asked for."""
    raw = read_json(text)
    if not isinstance(raw, dict):
        raise ValueError("the evaluation is not an object")
    score = usable_number(raw.get("score"))
    if score is None or not 0 <= score <= 1:
        raise ValueError("the score is not a number from 0 to 1")
    return Evaluation(
        score=score,
        progress=raw.get("progress") is True,
        sentence=str(raw.get("sentence") or "")[:500],
        plan_steps_done=tuple(index for index in _list(raw, "plan_steps_done") if type(index) is int),
        assumptions=tuple(item for item in _list(raw, "assumptions") if _is_marked(item)),
    )


def _list(raw: JsonObject, name: str) -> list[Any]:
    value = raw.get(name)
    return value if isinstance(value, list) else []


def _is_marked(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and type(item.get("step")) is int
        and type(item.get("assumption")) is int
        and item.get("status") in STATUSES
    )
