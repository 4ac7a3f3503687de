"""The plan: asked for as structured output before the first decision, marked by the evaluator, kept on the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files

from runs.engine.calls import read_json
from runs.engine.deciding import reply_of
from runs.engine.types import AgentSpec, JsonObject, ModelRequest, Step, StepStatus

PLAN_SCHEMA: JsonObject = {
    "title": "Plan",
    "type": "object",
    "properties": {
        "steps": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "needs_person": {"type": "boolean"},
                    "assumptions": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"text": {"type": "string"}, "check": {"type": "string"}},
                            "required": ["text", "check"],
                            "additionalProperties": False,
                        },
                    },
                },
                "required": ["title", "needs_person", "assumptions"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["steps"],
    "additionalProperties": False,
}
MOST_STEPS = 20


@cache
def prompt(name: str) -> str:
    return files("runs.engine").joinpath("prompts", f"{name}.md").read_text(encoding="utf-8").strip()


def plan_request(agent: AgentSpec, task: str, tool_names: Iterable[str], system: str) -> ModelRequest:
    text = prompt("plan").format(task=task, tools=", ".join(tool_names) or "none")
    return ModelRequest(
        model=agent.model,
        system=system,
        messages=({"role": "user", "content": [{"type": "text", "text": text}]},),
        max_tokens=2048,
        effort=agent.effort,
        output_schema=PLAN_SCHEMA,
    )


def read_plan(text: str) -> JsonObject:
    """The plan in the shape it is stored in, its first step running. Raises ValueError for anything else."""
    raw = read_json(text)
    if not isinstance(raw, dict) or not isinstance(raw.get("steps"), list) or not raw["steps"]:
        raise ValueError("no steps in the plan")
    steps = [_read_step(step) for step in raw["steps"][:MOST_STEPS]]
    steps[0]["status"] = "running"
    return {"steps": steps}


def refine(step: Step) -> Step:
    """The planning step with the plan that its reply holds, or as failed: the run then goes on without a plan."""
    try:
        plan = read_plan(reply_of(step).text)
    except ValueError as error:
        return replace(step, status=StepStatus.ERROR, error=step.error or f"No usable plan: {error}")
    count = len(plan["steps"])
    return replace(
        step,
        plan=plan,
        summary=f"{count} step{'' if count == 1 else 's'}: " + "; ".join(s["title"] for s in plan["steps"])[:280],
    )


def _read_step(raw: object) -> JsonObject:
    if not isinstance(raw, dict) or not str(raw.get("title") or "").strip():
        raise ValueError("a plan step without a title")
    assumptions = raw.get("assumptions")
    return {
        "title": str(raw["title"])[:200],
        "status": "not_started",
        "needs_person": bool(raw.get("needs_person")),
        "assumptions": [
            {
                "text": str(item.get("text") or "")[:300],
                "check": str(item.get("check") or "")[:300],
                "status": "not_checked",
            }
            for item in (assumptions if isinstance(assumptions, list) else [])[:10]
            if isinstance(item, dict) and item.get("text")
        ],
    }


def current_step(plan: JsonObject | None) -> int | None:
    """The index of the first step that is not done; None without a plan or when all are."""
    for index, step in enumerate((plan or {}).get("steps", [])):
        if step["status"] != "done":
            return index
    return None


def mark(plan: JsonObject, *, done: Sequence[int], assumptions: Sequence[JsonObject] = ()) -> JsonObject:
    """A new plan with the steps of `done` done, the next one running, and assumptions marked as the evaluator says."""
    steps = [{**step, "assumptions": [dict(item) for item in step["assumptions"]]} for step in plan["steps"]]
    for index in done:
        if 0 <= index < len(steps):
            steps[index]["status"] = "done"
    for item in assumptions:
        step, assumption = item["step"], item["assumption"]
        if 0 <= step < len(steps) and 0 <= assumption < len(steps[step]["assumptions"]):
            steps[step]["assumptions"][assumption]["status"] = item["status"]
    return _with_current({"steps": steps}, "running")


def mark_ended(plan: JsonObject | None, *, finished: bool) -> JsonObject | None:
    """At the end nothing is running any more: open steps are done when the run finished, else not started."""
    if not plan:
        return None
    open_status = "done" if finished else "not_started"
    return {
        "steps": [
            {**step, "status": step["status"] if step["status"] == "done" else open_status} for step in plan["steps"]
        ]
    }


def _with_current(plan: JsonObject, status: str) -> JsonObject:
    current = current_step(plan)
    steps = []
    for index, step in enumerate(plan["steps"]):
        if step["status"] == "done":
            steps.append(step)
        else:
            steps.append({**step, "status": status if index == current else "not_started"})
    return {"steps": steps}
