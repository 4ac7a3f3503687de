"""The plan: asked for as structured output before the first decision, marked by the evaluator, kept on the run.

A step whose assumption did not hold is never done as planned: it becomes `changed`, stays where it is, and the steps
that replace it follow it. Places of steps never shift under the journal rows that name them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
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
REVISION_SCHEMA: JsonObject = {**PLAN_SCHEMA, "title": "PlanRevision"}
MOST_STEPS = 20
MOST_TEXT = 12_000
CLOSED = ("done", "changed")


@dataclass(slots=True)
class PlanState:
    """The plan of a run as it stands now; None without one."""

    now: JsonObject | None = None

    @property
    def step(self) -> int | None:
        return current_step(self.now)

    @property
    def title(self) -> str:
        """Of the step that is being worked on; empty without one."""
        return str(self.now["steps"][self.step]["title"]) if self.now and self.step is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Assumptions that were found not to hold just now, the open plan steps that stand on them, and what was found.
    `all_steps` are also those that count as done: something of theirs may still wait to happen."""

    assumptions: tuple[str, ...]
    steps: tuple[int, ...] = field(default=())
    all_steps: tuple[int, ...] = field(default=())
    found: str = ""


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
        goes_on=False,
    )


def read_plan(text: str) -> JsonObject:
    """The plan in the shape it is stored in, its first step running. Raises ValueError for anything else."""
    steps = _read_steps(text)
    if not steps:
        raise ValueError("no steps in the plan")
    steps[0]["status"] = "running"
    return {"steps": steps}


def _read_steps(text: str) -> list[JsonObject]:
    raw = read_json(text)
    if not isinstance(raw, dict) or not isinstance(raw.get("steps"), list):
        raise ValueError("no steps in the plan")
    return [_read_step(step) for step in raw["steps"][:MOST_STEPS]]


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
        if step["status"] not in CLOSED:
            return index
    return None


def mark(
    plan: JsonObject, *, done: Sequence[int], assumptions: Sequence[JsonObject] = (), actual: str = ""
) -> JsonObject:
    """A new plan with the steps of `done` done, the next one running, and assumptions marked as the evaluator says.

    `actual` is what was found when a step was done: kept beside its title, so that plan and actual can be compared.
    """
    steps = [{**step, "assumptions": [dict(item) for item in step["assumptions"]]} for step in plan["steps"]]
    for index in done:
        if 0 <= index < len(steps) and steps[index]["status"] not in CLOSED:
            steps[index]["status"] = "done"
            if actual:
                steps[index]["actual"] = actual[:300]
    for item in assumptions:
        step, assumption = item["step"], item["assumption"]
        if 0 <= step < len(steps) and 0 <= assumption < len(steps[step]["assumptions"]):
            steps[step]["assumptions"][assumption]["status"] = item["status"]
    return _with_current({"steps": steps}, "running")


def newly_failed(before: JsonObject | None, after: JsonObject | None, found: str = "") -> Failed:
    """The assumptions that `after` marks as failed and `before` did not, with every open step that names one."""
    known = _failed_texts(before)
    failed = [text for text in _failed_texts(after) if text not in known]
    steps = (after or {}).get("steps", [])
    standing = [index for index, step in enumerate(steps) if any(a["text"] in failed for a in step["assumptions"])]
    still_open = tuple(index for index in standing if steps[index]["status"] not in CLOSED)
    return Failed(assumptions=tuple(failed), steps=still_open, all_steps=tuple(standing), found=found)


def is_open_to_doubt(plan: JsonObject | None) -> bool:
    """Whether an open step stands on an assumption that nobody has checked yet."""
    return any(
        item["status"] == "not_checked"
        for step in (plan or {}).get("steps", [])
        if step["status"] not in CLOSED
        for item in step["assumptions"]
    )


def may_fall(plan: JsonObject | None, places: Collection[int | None]) -> bool:
    """Whether one of these steps stands on an assumption that has not been refuted."""
    steps = (plan or {}).get("steps", [])
    return any(
        item["status"] != "did_not_hold"
        for place in set(places)
        if place is not None and place < len(steps)
        for item in steps[place]["assumptions"]
    )


def revision_request(agent: AgentSpec, task: str, plan: JsonObject, failed: Failed, system: str) -> ModelRequest:
    text = prompt("revise").format(
        task=task[:MOST_TEXT],
        plan=json.dumps(plan, ensure_ascii=False),
        failed="\n".join(f"- {text}" for text in failed.assumptions),
        found=failed.found,
        steps="\n".join(f"- {plan['steps'][index]['title']}" for index in failed.steps),
    )
    return ModelRequest(
        model=agent.model,
        system=system,
        messages=({"role": "user", "content": [{"type": "text", "text": text}]},),
        max_tokens=2048,
        effort=agent.effort,
        output_schema=REVISION_SCHEMA,
        goes_on=False,
    )


def revise(step: Step, plan: JsonObject, failed: Failed) -> Step:
    """The revising step with the plan as it is from now on. Without a usable reply the steps fall, and nothing replaces
    them: the model then decides without them."""
    try:
        new = _read_steps(reply_of(step).text)
    except ValueError as error:
        fallen = with_replaced(plan, failed, ())
        return replace(step, status=StepStatus.ERROR, error=step.error or f"No usable revision: {error}", plan=fallen)
    count = len(new)
    summary = f"{_quoted(failed.assumptions)} did not hold. {count} new step{'' if count == 1 else 's'}"
    titles = "; ".join(each["title"] for each in new)
    return replace(
        step,
        plan=with_replaced(plan, failed, new),
        summary=(f"{summary}: {titles}" if titles else f"{summary}.")[:300],
    )


def with_replaced(plan: JsonObject, failed: Failed, new: Sequence[JsonObject]) -> JsonObject:
    """The steps that stand on what failed are `changed` and say why; `new` follows the last of them."""
    why = f"{_quoted(failed.assumptions)} did not hold. {failed.found}".strip()[:300]
    steps = [
        {**step, "status": "changed", "actual": why} if index in failed.steps else dict(step)
        for index, step in enumerate(plan["steps"])
    ]
    place = max(failed.steps, default=len(steps) - 1) + 1
    return _with_current({"steps": [*steps[:place], *new, *steps[place:]][: 2 * MOST_STEPS]}, "running")


def described(plan: JsonObject) -> str:
    """The plan as the model is told of it: only what is still to be done."""
    lines = [step for step in plan["steps"] if step["status"] not in CLOSED]
    return "\n".join(
        f"{number}. {step['title']}" + "".join(f"\n   assumes: {item['text']}" for item in step["assumptions"])
        for number, step in enumerate(lines, 1)
    )


def mark_ended(plan: JsonObject | None, *, finished: bool) -> JsonObject | None:
    """At the end nothing is running any more: open steps are done when the run finished, else not started."""
    if not plan:
        return None
    open_status = "done" if finished else "not_started"
    return {
        "steps": [
            {**step, "status": step["status"] if step["status"] in CLOSED else open_status} for step in plan["steps"]
        ]
    }


def _failed_texts(plan: JsonObject | None) -> Collection[str]:
    found = [
        item["text"]
        for step in (plan or {}).get("steps", [])
        for item in step["assumptions"]
        if item["status"] == "did_not_hold"
    ]
    return list(dict.fromkeys(found))


def _quoted(texts: Sequence[str]) -> str:
    return " and ".join(f"“{text}”" for text in texts)


def _with_current(plan: JsonObject, status: str) -> JsonObject:
    current = current_step(plan)
    steps = []
    for index, step in enumerate(plan["steps"]):
        if step["status"] in CLOSED:
            steps.append(step)
        else:
            steps.append({**step, "status": status if index == current else "not_started"})
    return {"steps": steps}
