"""How an action ended, as its one step says it: in the same words, whether that is met at the claim or, after a crash,
on the row."""

from __future__ import annotations

from dataclasses import replace

from runs.engine.context import as_text
from runs.engine.types import Action, ActionStatus, Step, StepKind, StepStatus


def has_happened(step: Step) -> bool:
    """Whether a tool was called, so that there is a result."""
    return step.kind is StepKind.TOOL and step.status in (StepStatus.OK, StepStatus.ERROR, StepStatus.TIMEOUT)


def settled_by_a_person(begun: Step, action: Action) -> Step:
    happened = action.status is ActionStatus.SUCCEEDED
    who = "A person" if action.decisions else "The tool, asked again,"
    said = f"{who} confirmed that this {'happened' if happened else 'did not happen'}."
    output = action.result if action.result is not None else f"{said} {action.note}".strip()
    status = StepStatus.OK if happened else StepStatus.ERROR
    return replace(begun, status=status, output=output, summary=as_text(output)[:300])


def why_not(action: Action) -> str:
    who = ", ".join(dict.fromkeys(decision.by for decision in action.decisions))
    if action.status is not ActionStatus.REJECTED:
        return retired(action.status.value, action.note)
    note = f" Note: {action.note}" if action.note else ""
    return f"rejected by a person{f' ({who})' if who else ''}.{note}"


def retired(status: str, reason: str) -> str:
    return f"not done, {status}: {reason}" if reason else f"not done: {status}."
