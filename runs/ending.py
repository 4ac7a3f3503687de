"""Why a run ended, and what it leaves behind: from its columns and rules, never from a model's words."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from runs.engine.types import ActionStatus
from runs.models import Run

TITLES = {
    "max_steps": "The step limit was reached",
    "max_tokens": "The token limit was reached",
    "max_cost": "The cost budget does not cover more work",
    "max_seconds": "The time limit was reached",
    "loop": "The loop guard stopped this run",
    "diminishing_returns": "More tries brought nothing more",
    "content_filter": "The model refused to go on",
    "escalation_declined": "The question to a person was declined",
    "rejected": "A person rejected what the run needed",
    "model_error": "The model could not be used",
    "tool_error": "A tool failed",
    "internal_error": "Something failed inside agentsite",
}
BY_STATUS = {
    "completed": ("ok", "circle-check", "The agent finished"),
    "cancelled": ("", "circle-slash", "A person cancelled this run"),
    "dry_run_ready": ("", "eye", "Nothing has changed"),
    "stopped": ("high", "circle-alert", "A guardrail stopped this run"),
    "failed": ("bad", "circle-x", "This run failed"),
}
NOT_RUN = {
    ActionStatus.REJECTED: ("action was rejected", "actions were rejected"),
    ActionStatus.EXPIRED: ("action expired unanswered", "actions expired unanswered"),
    ActionStatus.CANCELLED: ("action was withdrawn", "actions were withdrawn"),
    ActionStatus.STALE: ("action was out of date", "actions were out of date"),
    ActionStatus.REVOKED: ("action was revoked", "actions were revoked"),
    ActionStatus.FAILED: ("action failed", "actions failed"),
}
SEVERAL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The card of an ended run. `code` is what one tells the people who run the installation."""

    run_id: uuid.UUID
    tone: str
    icon: str
    title: str
    detail: str
    result: str
    kept: tuple[str, ...]
    not_done: tuple[str, ...]
    effects: tuple[str, ...]
    nothing_happened: bool
    sum: str
    is_complete: bool
    is_failure: bool
    is_dry_run: bool
    code: str
    task: str


def ending_of(run: Run, actions: Mapping[str, int]) -> Ending:
    """`actions`: how many actions of the run have each status."""
    tone, icon, title = BY_STATUS.get(run.status, BY_STATUS["stopped"])
    reason = run.stop_reason or ""
    if run.status in {"stopped", "failed"}:
        title = TITLES.get(reason, title)
    effects = _effects(actions)
    return Ending(
        run_id=run.id,
        tone=tone,
        icon=icon,
        title=title,
        detail="" if run.status in {"completed", "dry_run_ready"} or _says_no_more(run, title) else run.stop_detail,
        result=run.result,
        kept=_kept(run),
        not_done=_not_done(run, actions),
        effects=effects,
        nothing_happened=not effects,
        sum=_sum(run),
        is_complete=run.status in {"completed", "dry_run_ready"},
        is_failure=run.status in {"stopped", "failed"},
        is_dry_run=run.status == "dry_run_ready",
        code=reason,
        task=run.task,
    )


def _says_no_more(run: Run, title: str) -> bool:
    return run.stop_detail.strip().rstrip(".") == title


def _kept(run: Run) -> tuple[str, ...]:
    done = [str(step["title"]) for step in (run.plan or {}).get("steps", []) if step.get("status") == "done"]
    return (*_some(done), _sum(run))


def _sum(run: Run) -> str:
    return f"{counted(run.last_seq, 'recorded step', 'recorded steps')}, {_spent(run)}"


def _spent(run: Run) -> str:
    if run.unpriced_steps and not run.cost_usd:
        return "cost not known"
    cents = run.cost_usd.quantize(Decimal("0.01"))
    return "less than $0.01 spent" if 0 < run.cost_usd < Decimal("0.01") else f"${cents:,} spent"


def _not_done(run: Run, actions: Mapping[str, int]) -> tuple[str, ...]:
    steps = (run.plan or {}).get("steps", [])
    still_open = [str(step["title"]) for step in steps if step.get("status") != "done"]
    not_run = [counted(actions[status], *words) for status, words in NOT_RUN.items() if actions.get(status)]
    return (*_some(still_open), *not_run)


def _effects(actions: Mapping[str, int]) -> tuple[str, ...]:
    found = []
    if done := actions.get(ActionStatus.SUCCEEDED, 0):
        found.append(f"{counted(done, 'action was', 'actions were')} carried out")
    if unknown := actions.get(ActionStatus.UNKNOWN, 0):
        found.append(f"{counted(unknown, 'action', 'actions')} may or may not have happened")
    if working := actions.get(ActionStatus.EXECUTING, 0):
        found.append(f"{counted(working, 'action', 'actions')} had begun")
    return tuple(found)


def _some(titles: list[str]) -> tuple[str, ...]:
    more = len(titles) - SEVERAL
    return tuple(titles) if more <= 1 else (*titles[:SEVERAL], f"and {more} more")


def counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
