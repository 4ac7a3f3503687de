"""Why a run stopped, in one sentence from rules. No model writes it."""

from __future__ import annotations

from runs.engine.types import JsonObject, Spent, StopReason

_LEAD = {
    StopReason.DONE: "The agent finished.",
    StopReason.MAX_STEPS: "Stopped: {detail}.",
    StopReason.MAX_TOKENS: "Stopped: {detail}.",
    StopReason.MAX_COST: "Stopped: {detail}.",
    StopReason.MAX_SECONDS: "Stopped: {detail}.",
    StopReason.CONTENT_FILTER: "Stopped: {detail}.",
    StopReason.CANCELLED: "A person cancelled this run.",
    StopReason.MODEL_ERROR: "Failed: {detail}.",
    StopReason.TOOL_ERROR: "Failed: {detail}.",
    StopReason.INTERNAL_ERROR: "Failed inside agentsite: {detail}.",
}


def explain(reason: StopReason, detail: str, plan: JsonObject | None, spent: Spent) -> str:
    lead = _LEAD.get(reason, "Stopped: {detail}.").format(detail=detail.rstrip(".") or reason.value.replace("_", " "))
    if reason is StopReason.DONE or not plan:
        return lead
    titles = {
        status: [s["title"] for s in plan["steps"] if s["status"] == status]
        for status in ("done", "running", "waiting")
    }
    total, done = len(plan["steps"]), len(titles["done"])
    begun = titles["running"] + titles["waiting"]
    middle = f" {done} of {total} plan steps {'is' if done == 1 else 'are'} finished"
    middle += f", “{begun[0]}” was begun" if begun else ""
    untouched = total - done - len(begun)
    return f"{lead}{middle}, {untouched} {'is' if untouched == 1 else 'are'} untouched."
