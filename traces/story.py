"""The head of a trace: what became of the run, from its state alone. No model writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_ENDED = {
    "done": "The agent finished.",
    "max_steps": "The step limit stopped this run at step {step}.",
    "max_tokens": "The token limit stopped this run at step {step}.",
    "max_cost": "The cost budget stopped this run at step {step}.",
    "max_seconds": "The time limit stopped this run at step {step}.",
    "loop": "The loop guard stopped this run at step {step}.",
    "diminishing_returns": "Diminishing returns stopped this run at step {step}.",
    "content_filter": "A content filter stopped this run at step {step}.",
    "escalation_declined": "A person declined to go on at step {step}.",
    "rejected": "A rejection ended this run at step {step}.",
    "cancelled": "A person cancelled this run at step {step}.",
    "model_error": "The model failed at step {step}.",
    "tool_error": "A tool failed at step {step}.",
    "internal_error": "agentsite itself failed at step {step}.",
}
_LIVE = {
    "queued": "This run waits for a worker.",
    "running": "This run is still going.",
    "waiting": "This run waits for a person.",
    "delegating": "This run waits for its sub-agents.",
    "paused": "This run is paused.",
}
_TONES = {"completed": "ok", "stopped": "high", "failed": "bad"}
_ACTIONS = (
    ("succeeded", "done"),
    ("rejected", "rejected"),
    ("failed", "failed"),
    ("unknown", "of unknown outcome"),
    ("expired", "expired"),
    ("stale", "out of date"),
    ("cancelled", "withdrawn"),
    ("revoked", "withdrawn by an approver"),
    ("approved", "approved and not yet done"),
    ("pending", "waiting for a person"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    tone: str
    title: str
    detail: str
    effects: str


def story(
    *, status: str, stop_reason: str | None, stop_detail: str, last_step: int, actions: Mapping[str, int]
) -> Story:
    """`actions` counts the run's actions by status."""
    if status == "dry_run_ready":
        title = "The dry run is ready. Nothing was changed."
    elif status in _LIVE:
        title = _LIVE[status]
    else:
        title = _ENDED.get(stop_reason or "", "This run ended at step {step}.").format(step=last_step)
    detail = "" if stop_detail.strip() == title else stop_detail.strip()
    return Story(tone=_TONES.get(status, ""), title=title, detail=detail, effects=_effects(actions))


def _effects(actions: Mapping[str, int]) -> str:
    known = [(actions.get(status, 0), words) for status, words in _ACTIONS]
    said = [f"{count} {words}" for count, words in known if count]
    total = sum(count for count, _ in known)
    return f"{total} {'action' if total == 1 else 'actions'}: {', '.join(said)}." if said else ""
