"""Bounds of the next call, before it is made: what it may cost at worst, and what must be kept back."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal

from runs.engine.ports import Budget, BudgetExceeded
from runs.engine.types import JsonObject, Limits, ModelRequest, Spent, StopReason

WRAP_UP_TOKENS = 1024
LEAST_USEFUL_TOKENS = 256


@dataclass(slots=True)
class PromptBound:
    """An upper bound of the next prompt's tokens: what the provider counted last, plus a token for each byte since.

    No counter of our own: a token is never shorter than a byte, and the provider's number is exact for the rest. What
    was left out since is not taken off, for nobody knows how many tokens it had.
    """

    counted_tokens: int = 0
    counted: ModelRequest | None = None

    def of(self, request: ModelRequest) -> int:
        if self.counted is None or _frame(self.counted) != _frame(request):
            return request_bytes(request)
        return self.counted_tokens + _bytes(request.messages[_shared(self.counted.messages, request.messages) :])

    def learn(self, request: ModelRequest, prompt_tokens: int) -> None:
        if prompt_tokens:
            self.counted_tokens, self.counted = prompt_tokens, request


def from_count(tokens: int) -> int:
    """A bound from the provider's own count of a prompt, which it calls an estimate."""
    return tokens + tokens // 50 + 32


def _frame(request: ModelRequest) -> tuple[object, ...]:
    return request.system, request.tools, request.output_schema


def _shared(counted: tuple[JsonObject, ...], messages: tuple[JsonObject, ...]) -> int:
    """How many messages both begin with. A conversation keeps its messages, so most are the very same objects."""
    for at, (old, new) in enumerate(zip(counted, messages, strict=False)):
        if old is not new and old != new:
            return at
    return min(len(counted), len(messages))


def request_bytes(request: ModelRequest) -> int:
    return _bytes(_frame(request)) + _bytes(request.messages)


def _bytes(parts: object) -> int:
    return len(json.dumps(parts, ensure_ascii=False, separators=(",", ":"), default=str).encode())


def fit(
    request: ModelRequest, bound: int, *, limits: Limits, spent: Spent, budget: Budget, keep_wrap_up: bool
) -> ModelRequest:
    """The request with `max_tokens` cut to what is left, reserved. Raises `BudgetExceeded`.

    With `keep_wrap_up` enough is kept back that a last call can still say what was done.
    """
    kept_output = WRAP_UP_TOKENS if keep_wrap_up else 0
    output = request.max_tokens
    if limits.max_output_tokens is not None:
        output = min(output, limits.max_output_tokens - spent.output_tokens - kept_output)
    if output < min(LEAST_USEFUL_TOKENS, request.max_tokens):
        raise BudgetExceeded(
            StopReason.MAX_TOKENS,
            f"the limit of {limits.max_output_tokens:,} output tokens is reached",
            "max_output_tokens",
        )
    kept_input = bound + output + 512 if keep_wrap_up else 0
    if limits.max_input_tokens is not None and spent.input_tokens + bound + kept_input > limits.max_input_tokens:
        raise BudgetExceeded(
            StopReason.MAX_TOKENS,
            f"the limit of {limits.max_input_tokens:,} input tokens is reached",
            "max_input_tokens",
        )
    # A run without a limit of its own is still reserved for: its team may have one.
    left = Decimal("Infinity") if limits.max_cost_usd is None else limits.max_cost_usd - spent.cost_usd
    output, usd = _affordable(request.model, bound, output, left, budget, keep_wrap_up)
    budget.reserve(usd=usd, input_tokens=bound + kept_input, output_tokens=output + kept_output)
    return replace(request, max_tokens=output)


def _affordable(
    model: str, bound: int, output: int, left: Decimal, budget: Budget, keep_wrap_up: bool
) -> tuple[int, Decimal]:
    """(output tokens, worst cost in dollars) that fit what is left. An unknown price can't be bounded, so it passes."""
    while True:
        worst = budget.worst_price(model, bound, output)
        if worst is None:
            return output, Decimal(0)
        if keep_wrap_up:
            worst += budget.worst_price(model, bound + output + 512, WRAP_UP_TOKENS) or Decimal(0)
        if worst <= left:
            return output, worst
        if output // 2 < LEAST_USEFUL_TOKENS:
            raise BudgetExceeded(
                StopReason.MAX_COST,
                f"what is left of the budget, ${left:.4f}, does not cover another step",
                "max_cost_usd",
            )
        output //= 2
