"""Costs of many runs in few bytes: mergeable, exact while they are few. Pure.

Beyond `EXACT` different values each is kept to six binary digits, so that a percentile is off by 1.6% at most.
Rounding what is rounded changes nothing: merging in any order gives the same.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Final

from traces.stats import percentile

EXACT: Final = 24
DIGITS: Final = 6


class Distribution:
    """`counts` maps billionths of a dollar to a number of runs; bytes of summaries join it only when needed, so that
    whoever wants a number asks `runs` or `percentile`."""

    __slots__ = ("counts", "packed")

    def __init__(self, packed: bytes | memoryview = b"") -> None:
        self.counts: dict[int, int] = {}
        self.packed: list[bytes | memoryview] = [packed] if packed else []

    def add(self, value: int, times: int = 1) -> None:
        self.counts[value] = self.counts.get(value, 0) + times

    def merge(self, other: Distribution) -> None:
        self.packed += other.packed
        for value, times in other.counts.items():
            self.add(value, times)

    @property
    def runs(self) -> int:
        self._unpack()
        return sum(self.counts.values())

    def percentiles(self, shares: Sequence[float]) -> list[Decimal | None]:
        """In dollars, between two runs in proportion."""
        values, ends = self._ordered()
        return [_between(values, ends, share) for share in shares]

    def percentile(self, share: float) -> Decimal | None:
        return self.percentiles([share])[0]

    def to_bytes(self) -> bytes:
        self._unpack()
        counts = self.counts if len(self.counts) <= EXACT else _rounded(self.counts.items())
        flat = [number for pair in sorted(counts.items()) for number in pair]
        return struct.pack(f"<{len(flat)}Q", *flat)

    def _ordered(self) -> tuple[Sequence[int], list[int]]:
        """(values in rising order, how many runs there are up to each)."""
        if len(self.packed) == 1 and not self.counts:
            flat = _numbers(self.packed[0])  # in order already
            return flat[::2], list(accumulate(flat[1::2]))
        self._unpack()
        values = sorted(self.counts)
        return values, list(accumulate(map(self.counts.__getitem__, values)))

    def _unpack(self) -> None:
        packed, self.packed = self.packed, []
        counts = self.counts
        for data in packed:
            flat = iter(_numbers(data))
            for value, times in zip(flat, flat, strict=True):
                counts[value] = counts.get(value, 0) + times


def _numbers(data: bytes | memoryview) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 8}Q", data)


def _between(values: Sequence[int], ends: Sequence[int], share: float) -> Decimal | None:
    if not ends:
        return None
    place = (ends[-1] - 1) * share
    before = int(place)
    index = bisect_right(ends, before)
    low = high = values[index]
    if before + 1 >= ends[index] and index + 1 < len(values):
        high = values[index + 1]
    if low == high:
        return Decimal(low).scaleb(-9)
    return percentile([Decimal(low).scaleb(-9), Decimal(high).scaleb(-9)], place - before)


def _rounded(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for value, times in pairs:
        cut = value.bit_length() - DIGITS
        kept = value if cut <= 0 else (value >> cut << cut) + (1 << cut >> 1)
        counts[kept] = counts.get(kept, 0) + times
    return counts
