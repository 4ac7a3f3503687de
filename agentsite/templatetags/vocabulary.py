"""The words, icons and tones of statuses, risks and step kinds: one place, so that no page invents its own."""

from __future__ import annotations

from typing import NamedTuple


class State(NamedTuple):
    word: str
    icon: str
    tone: str


class Risk(NamedTuple):
    word: str
    bars: int


class Kind(NamedTuple):
    word: str
    icon: str
    tone: str


UNKNOWN_STATUS = State("Unknown", "circle-dashed", "quiet")
STATUSES = {
    # runs
    "queued": State("Queued", "circle-dashed", "quiet"),
    "running": State("Running", "loader-circle", "accent"),
    "waiting": State("Needs approval", "hand", "warn"),
    "delegating": State("Waits for sub-agents", "git-branch", "accent"),
    "paused": State("Paused", "circle-pause", "quiet"),
    "completed": State("Completed", "circle-check", "ok"),
    "stopped": State("Stopped by guardrail", "circle-alert", "high"),
    "failed": State("Failed", "circle-x", "bad"),
    "cancelled": State("Cancelled", "circle-slash", "quiet"),
    "dry_run_ready": State("Dry run ready", "eye", "plain"),
    # actions and batches
    "pending": State("Needs approval", "hand", "warn"),
    "approved": State("Approved", "circle-check", "ok"),
    "executing": State("Executing", "loader-circle", "accent"),
    "succeeded": State("Done", "circle-check", "ok"),
    "unknown": State("Outcome unknown", "circle-alert", "high"),
    "rejected": State("Rejected", "circle-x", "bad"),
    "answered": State("Answered", "circle-check", "ok"),
    "expired": State("Expired, nothing ran", "ban", "quiet"),
    "superseded": State("Replaced by an edit", "pencil", "quiet"),
    "stale": State("Out of date", "circle-alert", "high"),
    "revoked": State("Withdrawn", "circle-slash", "quiet"),
    "decided": State("Decided", "circle-check", "quiet"),
}

RISKS = {
    "low": Risk("Low", 1),
    "medium": Risk("Medium", 2),
    "high": Risk("High", 3),
    "critical": Risk("Critical", 4),
}

KINDS = {
    "plan": Kind("Plan", "list-checks", "plan"),
    "model": Kind("Model", "brain", "model"),
    "tool": Kind("Tool", "wrench", "tool"),
    "evaluate": Kind("Evaluation", "scale", "eval"),
    "delegate": Kind("Sub-agent", "git-branch", "sub"),
    "approval": Kind("Approval", "hand", "warn"),
    "waiting": Kind("Waiting", "hourglass", "warn"),
    "guardrail": Kind("Guardrail", "circle-alert", "high"),
    "message": Kind("Message", "message-square", "plan"),
    "result": Kind("Result", "flag", "plan"),
}
FAILED_STEPS = {"error", "timeout", "denied"}
