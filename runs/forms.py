"""The launch form as it was typed, and what it asks for. Nothing typed is ever lost: errors stand beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any, TypedDict

import pydantic
from django.http import QueryDict

from runs.commands import Launch
from runs.engine.types import Mode
from runs.errors import Invalid
from runs.models import Run
from runs.schemas import AgentIn, LimitsIn

FIELD_OF = {"max_cost_usd": "cost", "max_input_tokens": "tokens", "max_output_tokens": "tokens", "max_steps": "steps"}


class Budget(TypedDict):
    cost: str
    tokens: str
    steps: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchForm:
    """Every value as text. A budget field that is None was not part of the form and takes the agent's limit."""

    agent: str = ""
    task: str = ""
    mode: str = ""
    cost: str | None = None
    tokens: str | None = None
    steps: str | None = None
    errors: Mapping[str, str] = field(default_factory=dict)

    def complete(self, own: Budget) -> LaunchForm:
        """With the agent's own limit where the form had no such field."""
        return replace(
            self,
            cost=own["cost"] if self.cost is None else self.cost,
            tokens=own["tokens"] if self.tokens is None else self.tokens,
            steps=own["steps"] if self.steps is None else self.steps,
        )

    def with_errors(self, errors: Mapping[str, str]) -> LaunchForm:
        return replace(self, errors=dict(errors))


def read(data: QueryDict) -> LaunchForm:
    """Browsers send line ends as CR LF."""
    return LaunchForm(
        agent=data.get("agent", ""),
        task=data.get("task", "").replace("\r\n", "\n"),
        mode=data.get("mode", ""),
        cost=data.get("cost"),
        tokens=data.get("tokens"),
        steps=data.get("steps"),
    )


def blank(slug: str, definition: AgentIn, sample_task: str) -> LaunchForm:
    """What the page starts with: the agent's own task, mode and limits."""
    return LaunchForm(agent=slug, task=sample_task, mode=definition.default_mode, **budget(definition.limits))


def again(run: Run) -> LaunchForm:
    limits = LimitsIn.model_construct(**{name: getattr(run, name) for name in LimitsIn.model_fields})
    return LaunchForm(agent=run.agent.slug, task=run.task, mode=run.mode, **budget(limits))


def budget(limits: LimitsIn) -> Budget:
    """The limits as the form shows them. Input and output tokens are one number there."""
    total = total_tokens(limits)
    return {
        "cost": "" if limits.max_cost_usd is None else money(limits.max_cost_usd),
        "tokens": "" if total is None else f"{total:,}",
        "steps": "" if limits.max_steps is None else str(limits.max_steps),
    }


def total_tokens(limits: LimitsIn) -> int | None:
    if limits.max_input_tokens is None or limits.max_output_tokens is None:
        return None
    return limits.max_input_tokens + limits.max_output_tokens


def money(amount: Decimal) -> str:
    """1.5 is 1.50, 0.005 stays 0.005."""
    text = f"{amount:.9f}".rstrip("0")
    whole, _, cents = text.partition(".")
    return f"{whole}.{cents.ljust(2, '0')}"


def wanted(form: LaunchForm, definition: AgentIn) -> Launch:
    """What `commands.launch` takes. Raises `Invalid` by the form's field names."""
    errors: dict[str, str] = {}
    limits = _limits(form, definition.limits, errors)
    if form.mode and form.mode not in list(Mode):
        errors["mode"] = "Choose one of the three modes."
    if errors:
        raise Invalid(errors)
    return Launch(agent=form.agent, task=form.task, mode=Mode(form.mode) if form.mode else None, limits=limits)


def cost_of(form: LaunchForm) -> Decimal | None:
    """The budget as far as it can be read: for the estimate, which is not the place to complain."""
    try:
        amount = _number(form.cost or "")
    except ValueError:
        return None
    return amount if amount > 0 else None


def _limits(form: LaunchForm, own: LimitsIn, errors: dict[str, str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    typed = {
        "cost": (form.cost, own.max_cost_usd),
        "tokens": (form.tokens, total_tokens(own)),
        "steps": (form.steps, own.max_steps),
    }
    for name, (text, limit) in typed.items():
        if text is None or (not text.strip() and limit is None):
            continue
        try:
            amount = _number(text)
        except ValueError as error:
            errors[name] = str(error)
            continue
        changes.update(_change(name, amount, own))
    try:
        LimitsIn.model_validate({**own.model_dump(), **changes})
    except pydantic.ValidationError as error:
        for problem in error.errors():
            name = FIELD_OF.get(str(problem["loc"][0]), "cost")
            errors.setdefault(name, _words(problem))
    return changes


def _change(name: str, amount: Decimal, own: LimitsIn) -> dict[str, Any]:
    if name == "cost":
        return {"max_cost_usd": amount}
    if name == "steps":
        return {"max_steps": _whole(amount)}
    total = total_tokens(own)
    if amount == total:
        return {}
    share = Decimal(own.max_output_tokens or 1) / Decimal(total) if total else Decimal("0.1")
    output = max(1, int(amount * share))
    return {"max_output_tokens": output, "max_input_tokens": _whole(amount - output)}


def _whole(amount: Decimal) -> int | Decimal:
    """An integer where it is one; else the type's own message says that it must be."""
    return int(amount) if amount == amount.to_integral_value() else amount


def _number(text: str) -> Decimal:
    cleaned = text.strip().removeprefix("$").replace(",", "").replace("\N{MINUS SIGN}", "-").strip()
    if not cleaned:
        raise ValueError("Write a number above 0.")
    try:
        amount = Decimal(cleaned)
    except InvalidOperation as error:
        raise ValueError(f"“{text.strip()[:20]}” is not a number.") from error
    if not amount.is_finite() or abs(amount) > 10**12:
        raise ValueError(f"“{text.strip()[:20]}” is out of range.")
    return amount


def _words(problem: Mapping[str, Any]) -> str:
    context = problem.get("ctx") or {}
    if problem["type"] == "greater_than":
        return "Must be above 0."
    if problem["type"] == "less_than_equal":
        return f"At most {context['le']:,}."
    if problem["type"] in {"int_from_float", "int_type", "int_parsing"}:
        return "Must be a whole number."
    return "This number can't be used."
