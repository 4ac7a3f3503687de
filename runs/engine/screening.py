"""Content filters at work in a run: on its task, on what tools give back, on its answer. Each finding is a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runs.engine import filters
from runs.engine.filters import BLOCK, MARK, REDACT, Filters
from runs.engine.halting import Stop
from runs.engine.ports import Clock, Journal
from runs.engine.types import Risk, Route, Step, StepKind, StepStatus, StopReason

SUSPICION = "a tool result that came before it reads like an instruction to the agent"


class Screen:
    """`suspicion` says why what follows is routed one level up; it lasts until the model ends its turn."""

    def __init__(self, wanted: Filters, journal: Journal, clock: Clock) -> None:
        self.wanted = wanted
        self.journal = journal
        self.clock = clock
        self.suspicion = ""
        self.marked: list[str] = []

    def task(self, text: str) -> None:
        self._check("task", "task", text)

    def outputs(self, steps: Sequence[Step]) -> None:
        """Before the model is given them. Raises `Stop` where the policy says block."""
        for step in steps:
            where = f"result of {step.tool or 'a tool'}"
            self._check(step.key, where, step.output)
            self._instructions(step, where)

    def answer(self, turn: int, text: str) -> None:
        self._check(f"answer:{turn}", "answer", text)

    def turn_ended(self) -> None:
        self.suspicion = ""

    def blocks(self, text: str) -> bool:
        return bool(filters.names_in(text, self.wanted, BLOCK))

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _check(self, key: str, where: str, value: Any) -> None:
        if blocked := filters.names_in(value, self.wanted, BLOCK):
            raise Stop(
                StopReason.CONTENT_FILTER, f"the {where} holds {listed(blocked)}, which the content filter blocks"
            )
        if found := filters.names_in(value, self.wanted, REDACT):
            words = f"In the {where}: {listed(found)}. Tools and the model get the real value."
            self._record(f"filter:{key}", "Kept out of the trace", words, StepStatus.OK)

    def _instructions(self, step: Step, where: str) -> None:
        policy = self.wanted.instructions
        found = filters.instructions_in(step.output) if policy in (MARK, BLOCK) else []
        if not found:
            return
        if policy == BLOCK:
            raise Stop(
                StopReason.CONTENT_FILTER,
                f"the {where} holds what reads like an instruction (“{found[0]}”), which the content filter blocks",
            )
        self.suspicion = SUSPICION
        self.marked.append(step.tool)
        words = f"In the {where}: “{found[0]}” What follows from it in this turn is routed one level up."
        title = "Instruction inside a tool result"
        self._record(f"instruction:{step.key}", title, words, StepStatus.DENIED, found)

    def _record(self, key: str, title: str, words: str, status: StepStatus, output: Any = None) -> None:
        if self.journal.recorded("result") is not None and self.journal.recorded(key) is None:
            return
        step = Step(
            kind=StepKind.GUARDRAIL,
            title=title,
            status=status,
            summary=words[:300],
            output=output,
            started_at=self.clock.now(),
        )
        self.journal.once(key, StepKind.GUARDRAIL, lambda: step)


def one_level_up(chosen: Route, reads: bool, why: str) -> Route:
    """Where an action goes that follows from suspicious text: higher risk, never alone, under no standing grant.

    A read changes nothing and stays where it is; `forbid` cannot go higher.
    """
    if not why or chosen.outcome == "forbid" or (reads and chosen.outcome == "release"):
        return chosen
    risks = list(Risk)
    risk = risks[min(chosen.risk.level + 1, len(risks) - 1)]
    return Route(outcome="ask", reason=why, risk=risk, needed=max(chosen.needed, 1))


def listed(names: Sequence[str]) -> str:
    """a card number and an API key"""
    named = [f"{'an' if name[0] in 'aAeEiIoOuU' else 'a'} {name}" for name in names]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
