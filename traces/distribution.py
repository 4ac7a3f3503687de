"""Costs of many runs in few bytes: mergeable, exact while they are few. Pure.

Beyond `EXACT` different values each is kept to six binary digits, so that a percentile is off by 1.6% at most.
Rounding what is rounded changes nothing: merging in any order gives the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from traces.stats import percentile

EXACT: Final = 24
DIGITS: Final = 6


class Distribution:
    """`counts` maps billionths of a dollar to a number of runs. Bytes of a summary are unpacked when needed."""

    __slots__ = ("counts", "packed")

    def __init__(self, packed: bytes | memoryview = b"") -> None:
        self.counts: dict[int, int] = {}
        self.packed = packed

    def add(self, value: int, times: int = 1) -> None:
        self.counts[value] = self.counts.get(value, 0) + times

    def merge(self, other: Distribution) -> None:
        self.unpack()
        if other.packed:
            self.read(other.packed)
        for value, times in other.counts.items():
            self.counts[value] = self.counts.get(value, 0) + times

    def unpack(self) -> None:
        if self.packed:
            packed, self.packed = self.packed, b""
            self.read(packed)

    def percentile(self, share: float) -> Decimal | None:
        """In dollars, between two runs in proportion."""
        self.unpack()
        ordered = sorted(self.counts.items())
        total = sum(self.counts.values())
        if not total:
            return None
        place = (total - 1) * share
        low = Decimal(_at(ordered, int(place))).scaleb(-9)
        high = Decimal(_at(ordered, min(int(place) + 1, total - 1))).scaleb(-9)
        return percentile([low, high], place - int(place))

    def to_bytes(self) -> bytes:
        counts = self.counts if len(self.counts) <= EXACT else _rounded(self.counts.items())
        flat = [number for pair in sorted(counts.items()) for number in pair]
        return struct.pack(f"<{len(flat)}Q", *flat)

    def read(self, data: bytes | memoryview) -> None:
        """Merges what `to_bytes` wrote."""
        flat = struct.unpack(f"<{len(data) // 8}Q", data)
        counts = self.counts
        for value, times in zip(flat[::2], flat[1::2], strict=True):
            counts[value] = counts.get(value, 0) + times


def _at(ordered: list[tuple[int, int]], place: int) -> int:
    """The value of the run at this place."""
    for value, times in ordered:
        if place < times:
            return value
        place -= times
    return ordered[-1][0]


def _rounded(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for value, times in pairs:
        cut = value.bit_length() - DIGITS
        kept = value if cut <= 0 else (value >> cut << cut) + (1 << cut >> 1)
        counts[kept] = counts.get(kept, 0) + times
    return counts
