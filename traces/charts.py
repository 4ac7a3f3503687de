"""Geometry of charts as numbers in percent of the plot; templates put them into SVG attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

Number = int | float | Decimal


def pc(share: float) -> str:
    """A share as an SVG percentage without a needless tail: 0.124 -> 12.4."""
    return f"{share * 100:.3f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Tick:
    """`y` is measured from the top."""

    value: float
    y: str


@dataclass(frozen=True, slots=True)
class Segment:
    series: int
    value: Number
    y: str
    height: str


@dataclass(frozen=True, slots=True)
class Bar:
    index: int
    x: str
    middle: str
    width: str
    total: Number
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    top: float


def nice_ticks(highest: float, wanted: int = 4, *, whole: bool = False) -> list[float]:
    """Round values from zero to at or above `highest`, about `wanted` of them above zero."""
    if highest <= 0 or not math.isfinite(highest):
        return [0.0, 1.0]
    raw = highest / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    return [round(step * n, 10) for n in range(math.ceil(highest / step - 1e-9) + 1)]


def stacked(buckets: Sequence[Sequence[Number]], *, wanted: int = 4, gap: float = 0.25, whole: bool = False) -> Bars:
    """One bar for each bucket, its values stacked from the bottom in the order of the series."""
    totals = [sum(values, start=0) for values in buckets]
    ticks = nice_ticks(float(max(totals, default=0)), wanted, whole=whole)
    top = ticks[-1]
    slot = 1 / len(buckets) if buckets else 1
    bars = tuple(
        Bar(
            index=index,
            x=pc(slot * (index + gap / 2)),
            middle=pc(slot * (index + 0.5)),
            width=pc(slot * (1 - gap)),
            total=totals[index],
            segments=_segments(values, top),
        )
        for index, values in enumerate(buckets)
    )
    return Bars(bars=bars, ticks=tuple(Tick(value, pc(1 - value / top)) for value in ticks), top=top)


def _segments(values: Sequence[Number], top: float) -> tuple[Segment, ...]:
    below = 0.0
    found = []
    for series, value in enumerate(values):
        if not value:
            continue
        height = float(value) / top
        below += height
        found.append(Segment(series=series, value=value, y=pc(1 - below), height=pc(height)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Part:
    """A slice of one horizontal bar."""

    x: str
    width: str


def parts(values: Sequence[Number], whole: Number | None = None) -> list[Part]:
    """Slices one behind the other; `whole` is the full width, the sum unless told."""
    total = float(sum(values, start=0) if whole is None else whole)
    found, at = [], 0.0
    for value in values:
        width = float(value) / total if total > 0 else 0.0
        found.append(Part(pc(at), pc(width)))
        at += width
    return found
