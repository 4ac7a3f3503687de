"""Why a run stopped, in one sentence from rules. No model writes it.

The sentence names what is finished, half done and untouched, and for a run that a guardrail stopped the usual suspects
that its own steps point at: a tool result that was trusted too much, a context grown too large, an ambiguous task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runs.engine.types import JsonObject, StopReason

_LEAD = {
    StopReason.DONE: "The agent finished",
    StopReason.CANCELLED: "A person cancelled this run",
    StopReason.MODEL_ERROR: "Failed: {detail}",
    StopReason.TOOL_ERROR: "Failed: {detail}",
    StopReason.INTERNAL_ERROR: "Failed inside agentsite: {detail}",
}
_SUSPECTED = frozenset(
    {
        StopReason.MAX_STEPS,
        StopReason.MAX_TOKENS,
        StopReason.MAX_COST,
        StopReason.MAX_SECONDS,
        StopReason.LOOP,
        StopReason.DIMINISHING_RETURNS,
    }
)
MOST_NAMED = 3
LARGE_PROMPT = 60_000
FEW_WORDS = 6
LONGEST_TITLE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What the steps of the run show. `suspicious`: tools whose results read like instructions; `prompt_tokens`: of the
    largest prompt; `without_progress`: evaluations in a row; calls are counted where there is no plan: those with a
    result, those that have begun and have none, and proposed actions of which nothing has begun."""

    task: str = ""
    suspicious: Sequence[str] = ()
    prompt_tokens: int = 0
    was_compacted: bool = False
    without_progress: int = 0
    revisions: int = 0
    calls_done: int = 0
    calls_not_done: int = 0
    calls_begun: int = 0
    proposed: int = 0


NO_SIGNS = Signs()


def explain(reason: StopReason, detail: str, plan: JsonObject | None, signs: Signs = NO_SIGNS) -> str:
    lead = _LEAD.get(reason, "Stopped: {detail}").format(detail=detail.rstrip(".") or reason.value.replace("_", " "))
    if reason is StopReason.DONE:
        changed = _titles(plan, ("changed",))
        parts = [f"not done as planned: {_named(changed)}"] if changed else []
    else:
        parts = list(_progress(plan, signs))
    suspects = list(_suspects(reason, plan, signs)) if reason in _SUSPECTED else []
    if suspects:
        parts.append(f"perhaps because {' and '.join(suspects)}")
    return "; ".join([lead, *parts]) + "."


def _progress(plan: JsonObject | None, signs: Signs) -> Iterator[str]:
    if not plan:
        if signs.calls_done:
            yield f"finished: {_counted(signs.calls_done, 'tool call')}"
        if signs.calls_begun:
            yield f"half done: {_counted(signs.calls_begun, 'tool call')}"
        if signs.calls_not_done:
            yield f"not done: {_counted(signs.calls_not_done, 'tool call')}"
        if signs.proposed:
            yield f"untouched: {_counted(signs.proposed, 'proposed action')}"
        elif signs.task and not (signs.calls_done or signs.calls_begun or signs.calls_not_done):
            yield "untouched: the whole task, for no tool was called"
        return
    for word, statuses in (
        ("finished", ("done",)),
        ("half done", ("running", "waiting")),
        ("untouched", ("not_started",)),
        ("not done as planned", ("changed",)),
    ):
        if titles := _titles(plan, statuses):
            yield f"{word}: {_named(titles)}"


def _suspects(reason: StopReason, plan: JsonObject | None, signs: Signs) -> Iterator[str]:
    if signs.suspicious:
        tools = " and ".join(dict.fromkeys(signs.suspicious))
        yield f"a tool result was trusted too much ({tools} gave text that reads like an instruction)"
    if signs.was_compacted or signs.prompt_tokens >= LARGE_PROMPT:
        yield f"the context grew too large ({signs.prompt_tokens:,} tokens in one prompt)"
    if not _titles(plan, ("done",)):
        if 0 < len(signs.task.split()) < FEW_WORDS:
            yield f"the task is ambiguous (it has only {_counted(len(signs.task.split()), 'word')})"
        elif signs.without_progress > 1 or signs.revisions > 1 or (plan and reason is StopReason.LOOP):
            yield "the task is ambiguous (no step towards it was finished)"


def _titles(plan: JsonObject | None, statuses: tuple[str, ...]) -> list[str]:
    return [str(step["title"]) for step in (plan or {}).get("steps", []) if step["status"] in statuses]


def _named(titles: Sequence[str]) -> str:
    named = [f"“{_short(title)}”" for title in titles[:MOST_NAMED]]
    rest = len(titles) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest else "")


def _short(title: str) -> str:
    """Without the full stop: a title is named in the middle of a sentence."""
    plain = " ".join(title.split()).rstrip(".")
    return plain if len(plain) <= LONGEST_TITLE else plain[: LONGEST_TITLE - 1].rstrip() + "…"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
