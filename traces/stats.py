"""Percentiles in Python, so that both databases give the same number."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TypeVar

N = TypeVar("N", float, Decimal)


def percentile(ordered: Sequence[N], share: float) -> N | None:
    """Of values in rising order, between two of them in proportion, as SQL's percentile_cont; None of none."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    step = ordered[high] - ordered[low]
    if isinstance(step, Decimal):
        return ordered[low] + step * Decimal(str(round(place - low, 12)))
    return ordered[low] + step * (place - low)
