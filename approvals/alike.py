"""Many actions of one kind in a batch: what is usual folds into one line, what stands out keeps its card."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Protocol

from runs.engine.types import Risk
from runs.previews import Preview, counted, money

MANY = 6  # of one tool, from which they fold
FAR = 2  # times the median amount
LESS_SURE = 0.15


class Shown(Protocol):
    """What is read of an action's view."""

    @property
    def id(self) -> uuid.UUID: ...
    @property
    def tool(self) -> str: ...
    @property
    def risk(self) -> str: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def preview(self) -> Preview: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Neighbours in the order of execution: folded under `words`, or, with none, one after the other."""

    words: str
    places: tuple[int, ...]


def unusual(actions: Sequence[Shown]) -> dict[uuid.UUID, str]:
    """Why an action stands out of the many of its tool, in words; by its id."""
    found: dict[uuid.UUID, str] = {}
    for tool, count in Counter(action.tool for action in actions).items():
        if count >= MANY:
            found |= _outliers([action for action in actions if action.tool == tool])
    return found


def runs(actions: Sequence[Shown], unlike: Mapping[uuid.UUID, str]) -> list[Run]:
    """The actions in their order, neighbours of one kind folded. What stands out or stands alone is never folded."""
    many = {tool for tool, count in Counter(action.tool for action in actions).items() if count >= MANY}
    found: list[list[int]] = []
    for place, action in enumerate(actions):
        folds = action.tool in many and action.id not in unlike
        previous = actions[found[-1][-1]] if found else None
        if folds and previous is not None and previous.tool == action.tool and previous.id not in unlike:
            found[-1].append(place)
        else:
            found.append([place])
    return [
        Run(words=_words([actions[place] for place in places]) if len(places) > 1 else "", places=tuple(places))
        for places in found
    ]


def _outliers(alike: Sequence[Shown]) -> dict[uuid.UUID, str]:
    reasons: dict[uuid.UUID, list[str]] = {action.id: [] for action in alike}
    amounts = [action.preview.effect.amount for action in alike if action.preview.effect.amount is not None]
    usual = median(amounts) if amounts else None
    sure = median([action.confidence for action in alike if action.confidence is not None] or [0.0])
    risk, _ = Counter(action.risk for action in alike).most_common(1)[0]
    for action in alike:
        amount = action.preview.effect.amount
        if usual is not None and amount is not None and usual > 0 and amount > usual * FAR:
            typical = money(usual.quantize(Decimal("0.01")), action.preview.effect.currency)
            reasons[action.id].append(f"half of these {len(alike)} are at most {typical}")
        if action.confidence is not None and action.confidence < sure - LESS_SURE:
            reasons[action.id].append(f"the agent is surer of the others ({sure:.0%})")
        if Risk(action.risk).level > Risk(risk).level:
            reasons[action.id].append(f"most of these are of {risk} risk")
    return {action: "; ".join(words) for action, words in reasons.items() if words}


def _words(alike: Sequence[Shown]) -> str:
    """`9 refunds, $12.00 to $18.00`"""
    first = alike[0].preview
    words = counted(len(alike), first.noun, f"{first.noun}s")
    amounts = sorted(action.preview.effect.amount for action in alike if action.preview.effect.amount is not None)
    if not amounts:
        return words
    low, high = (money(amount, first.effect.currency) for amount in (amounts[0], amounts[-1]))
    return f"{words}, {low} each" if low == high else f"{words}, {low} to {high}"
