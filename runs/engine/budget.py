"""Bounds of the next call, before it is made: what it may cost at worst, and what must be kept back."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from runs.engine.ports import Budget, BudgetExceeded
from runs.engine.types import JsonObject, Limits, ModelRequest, Room, Spent, StopReason, Usage

WRAP_UP_TOKENS = 1024
LEAST_USEFUL_TOKENS = 256
TOLD_TOKENS = 512  # what is said to the model after its reply, at the end of a run
RESULT_TOKENS = 2048  # of a sub-agent's answer; a longer one is cut where there is no room for it


@dataclass(slots=True)
class PromptBound:
    """An upper bound of the next prompt's tokens: what the provider counted last, plus a token for each byte since.

    No counter of our own: a token is never shorter than a byte, and the provider's number is exact for the rest. What
    was left out since is not taken off, for nobody knows how many tokens it had. What stayed is not counted twice.
    """

    counted_tokens: int = 0
    counted: ModelRequest | None = None
    answered_tokens: int = 0  # of that prompt and its reply: all that has been said, but for what follows the reply

    def of(self, request: ModelRequest) -> int:
        if self.counted is None or _frame(self.counted) != _frame(request):
            return request_bytes(request)
        shared = _shared(self.counted.messages, request.messages)
        old, new = self.counted.messages[shared:], request.messages[shared:]
        since = self.counted_tokens + (_new_bytes(old, new) if old else _bytes(new))
        return min(since, request_bytes(request)) if old else since

    def learn(self, request: ModelRequest, usage: Usage) -> None:
        if usage.prompt_tokens:
            self.counted_tokens, self.counted = usage.prompt_tokens, request
            self.answered_tokens = usage.prompt_tokens + usage.output_tokens


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


def _new_bytes(old: tuple[JsonObject, ...], new: tuple[JsonObject, ...]) -> int:
    """Of what is said in `new` and not in `old`: after old results were cleared or summed up, most has stayed."""
    known = Counter(_text(block) for message in old for block in _blocks(message))
    found = Counter(_text(block) for message in new for block in _blocks(message))
    frames = sum(_bytes({**message, "content": []}) for message in new)
    return frames + sum(len(text.encode()) * count for text, count in (found - known).items())


def _blocks(message: JsonObject) -> list[Any]:
    content = message["content"]
    return content if isinstance(content, list) else [content]


def request_bytes(request: ModelRequest) -> int:
    return _bytes(_frame(request)) + _bytes(request.messages)


def _bytes(parts: object) -> int:
    return len(_text(parts).encode())


def _text(parts: object) -> str:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"), default=str)


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
    least = min(LEAST_USEFUL_TOKENS, output)
    if keep_wrap_up and limits.max_input_tokens is not None:  # what is answered now is read once more at the end
        output = min(output, limits.max_input_tokens - spent.input_tokens - 2 * bound - TOLD_TOKENS)
    kept_input = bound + output + TOLD_TOKENS if keep_wrap_up else 0
    too_much = limits.max_input_tokens is not None and spent.input_tokens + bound + kept_input > limits.max_input_tokens
    if output < least or too_much:
        raise BudgetExceeded(
            StopReason.MAX_TOKENS,
            f"the limit of {limits.max_input_tokens:,} input tokens is reached",
            "max_input_tokens",
        )
    # A run without a limit of its own is still reserved for: its team may have one.
    left = Decimal("Infinity") if limits.max_cost_usd is None else limits.max_cost_usd - spent.bound_usd
    output, usd = _affordable(request.model, bound, output, left, budget, keep_wrap_up)
    budget.reserve(usd=usd, input_tokens=bound + kept_input, output_tokens=output + kept_output)
    return replace(request, max_tokens=output)


def room_to_answer(said: PromptBound, results: int, model: str, budget: Budget) -> Room:
    """What a run needs to sum up once its sub-agents have given `results` answers."""
    prompt = said.answered_tokens + results * RESULT_TOKENS + TOLD_TOKENS
    usd = budget.worst_price(model, prompt, WRAP_UP_TOKENS) or Decimal(0)
    return Room(usd=usd, input_tokens=prompt, output_tokens=WRAP_UP_TOKENS)


def _affordable(
    model: str, bound: int, output: int, left: Decimal, budget: Budget, keep_wrap_up: bool
) -> tuple[int, Decimal]:
    """(output tokens, worst cost in dollars) that fit what is left. An unknown price can't be bounded, so it passes."""
    while True:
        worst = budget.worst_price(model, bound, output)
        if worst is None:
            return output, Decimal(0)
        if keep_wrap_up:
            worst += budget.worst_price(model, bound + output + TOLD_TOKENS, WRAP_UP_TOKENS) or Decimal(0)
        if worst <= left:
            return output, worst
        if output // 2 < LEAST_USEFUL_TOKENS:
            raise BudgetExceeded(
                StopReason.MAX_COST,
                f"what is left of the budget, ${left:.4f}, does not cover another step",
                "max_cost_usd",
            )
        output //= 2
