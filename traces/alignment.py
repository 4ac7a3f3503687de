"""Two journals side by side: which step of one is which of the other. Plain Python over keys."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

MOST_CELLS = 600_000
"""Of the table that finds the best alignment; larger ones are aligned by their longest common stretches."""

SAME, ALIKE = 5, 3
"""What it is worth to put two steps side by side: of the same arguments, or only of the same kind and tool. Two alike
are worth more than one same, so a changed argument does not tear a row of steps apart."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a step does, and with which arguments."""

    act: Hashable
    arguments: Hashable

    def worth(self, other: Key) -> int:
        if self.act != other.act:
            return 0
        return SAME if self.arguments == other.arguments else ALIKE


Pair = tuple[int | None, int | None]


def align(left: Sequence[Key], right: Sequence[Key]) -> list[Pair]:
    """Places in both, in order; None where one side has nothing to it. What is put in shifts nothing else."""
    lead = 0
    while lead < min(len(left), len(right)) and left[lead] == right[lead]:
        lead += 1
    tail = 0
    while tail < min(len(left), len(right)) - lead and left[-1 - tail] == right[-1 - tail]:
        tail += 1
    inner_left, inner_right = left[lead : len(left) - tail], right[lead : len(right) - tail]
    found: list[Pair] = [(place, place) for place in range(lead)]
    found += [(_moved(a, lead), _moved(b, lead)) for a, b in _between(inner_left, inner_right)]
    found += [(len(left) - tail + place, len(right) - tail + place) for place in range(tail)]
    return found


def _moved(place: int | None, by: int) -> int | None:
    return None if place is None else place + by


def _between(left: Sequence[Key], right: Sequence[Key]) -> list[Pair]:
    if len(left) * len(right) > MOST_CELLS:
        return _by_stretches(left, right)
    width = len(right) + 1
    best = [[0] * width for _ in range(len(left) + 1)]
    for a in range(len(left) - 1, -1, -1):
        row, below, key = best[a], best[a + 1], left[a]
        for b in range(len(right) - 1, -1, -1):
            apart = max(below[b], row[b + 1])
            worth = key.worth(right[b])
            row[b] = max(apart, below[b + 1] + worth) if worth else apart
    found: list[Pair] = []
    a = b = 0
    while a < len(left) and b < len(right):
        worth = left[a].worth(right[b])
        if worth and best[a][b] == best[a + 1][b + 1] + worth:
            found.append((a, b))
            a, b = a + 1, b + 1
        elif best[a + 1][b] >= best[a][b + 1]:
            found.append((a, None))
            a += 1
        else:
            found.append((None, b))
            b += 1
    found += [(place, None) for place in range(a, len(left))]
    found += [(None, place) for place in range(b, len(right))]
    return found


def _by_stretches(left: Sequence[Key], right: Sequence[Key]) -> list[Pair]:
    matcher = SequenceMatcher(None, [key.act for key in left], [key.act for key in right], autojunk=False)
    found: list[Pair] = []
    for _, a, a_end, b, b_end in matcher.get_opcodes():
        if a_end - a == b_end - b and all(left[a + step].act == right[b + step].act for step in range(a_end - a)):
            found += [(a + step, b + step) for step in range(a_end - a)]
            continue
        found += [(place, None) for place in range(a, a_end)]
        found += [(None, place) for place in range(b, b_end)]
    return found
