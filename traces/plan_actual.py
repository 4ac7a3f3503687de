"""What was planned beside what happened: one row a plan step, from the run's plan and the steps done for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from runs.models import Run, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """`first` and `last` are the numbers of the steps done for it, `asked` whether a person was asked on the way."""

    title: str
    status: str
    actual: str
    first: int | None
    last: int | None
    cost_usd: Decimal | None
    needs_person: bool
    asked: bool
    assumptions: tuple[tuple[str, str, str], ...]  # (text, status, how it can be checked)

    @property
    def person(self) -> str:
        """What the plan said of people, and whether it came so."""
        if self.needs_person:
            return "A person was planned for and asked" if self.asked else "A person was planned for and not asked"
        return "A person was asked, though none was planned for" if self.asked else ""


def planned_steps(run: Run, steps: Iterable[Step]) -> tuple[PlannedStep, ...]:
    of_plan = [step for step in steps if step.plan_step is not None]
    plan: Mapping[str, Any] = run.plan or {}
    return tuple(_row(index, planned, of_plan) for index, planned in enumerate(plan.get("steps", [])))


def _row(index: int, planned: Mapping[str, Any], steps: Sequence[Step]) -> PlannedStep:
    own = [step for step in steps if step.plan_step == index]
    costs = [step.cost_usd or Decimal(0) for step in own]
    return PlannedStep(
        title=str(planned.get("title", "")),
        status=str(planned.get("status", "")),
        actual=str(planned.get("actual", "")),
        first=min((step.seq for step in own), default=None),
        last=max((step.seq for step in own), default=None),
        cost_usd=sum(costs, Decimal(0)) if own else None,
        needs_person=bool(planned.get("needs_person")),
        asked=any(step.kind == "approval" for step in own),
        assumptions=tuple(
            (str(item.get("text", "")), str(item.get("status", "")), str(item.get("check", "")))
            for item in planned.get("assumptions", [])
        ),
    )
