"""Loops: the same call with the same result again and again, alone or in a cycle of two or three calls.

The model is told first. If it goes on all the same, the run stops.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from runs.engine.types import Step

# Rounds of a cycle, by how many calls one round has: at the first the model is told, at the second the run stops.
TELL_AT = {1: 3, 2: 2, 3: 2}
STOP_AT = {1: 4, 2: 3, 3: 3}
LONGEST_CYCLE = max(TELL_AT)

TOLD = (
    "Note from agentsite: {pattern}. Calling again brings nothing new. Use what you have, try something else, or end "
    "your turn and say what is missing. The run is stopped if this goes on."
)


@dataclass(frozen=True, slots=True)
class Loop:
    """A cycle of `tools` that came `rounds` times with the same arguments and the same results."""

    tools: tuple[str, ...]
    rounds: int
    stops: bool

    @property
    def pattern(self) -> str:
        """`shop.look was called 3 times with the same arguments and the same result`"""
        if len(self.tools) == 1:
            return f"{self.tools[0]} was called {self.rounds} times with the same arguments and the same result"
        return f"{', '.join(self.tools)} were called {self.rounds} times in this order with the same results"


@dataclass(slots=True)
class LoopGuard:
    """Sees the calls of a run in their order. Rebuilt by replay, so what it says of a turn is always the same."""

    _calls: list[tuple[str, str]] = field(default_factory=list)  # (tool, fingerprint)
    _told: set[tuple[str, ...]] = field(default_factory=set)

    def after(self, steps: Iterable[Step], repeatable: frozenset[str] = frozenset()) -> Loop | None:
        """The worst loop that the calls of one turn complete. `repeatable` names tools that may repeat (polling).

        The same call twice in one turn counts once: its model has not seen the first result yet.
        """
        found: Loop | None = None
        fresh: set[tuple[str, ...]] = set()
        seen: set[str] = set()
        for step in steps:
            mark = fingerprint(step)
            if step.tool in repeatable or mark in seen:
                continue
            seen.add(mark)
            self._calls.append((step.tool, mark))
            loop = self._tail(fresh)
            found = loop if loop is not None and (found is None or loop.stops) else found
        self._told |= fresh
        return found

    def _tail(self, fresh: set[tuple[str, ...]]) -> Loop | None:
        for length in range(1, LONGEST_CYCLE + 1):
            rounds = self._rounds(length)
            if rounds < TELL_AT[length]:
                continue
            cycle = self._calls[-length:]
            name = tuple(sorted(mark for _, mark in cycle))
            tools = tuple(tool for tool, _ in cycle)
            if name in self._told:
                return Loop(tools, rounds, stops=True) if rounds >= STOP_AT[length] else None
            if name in fresh:
                return None
            fresh.add(name)
            return Loop(tools, rounds, stops=False)
        return None

    def _rounds(self, length: int) -> int:
        """How often the last `length` calls stand at the end, one after the other."""
        cycle = self._calls[-length:]
        rounds = 0
        while self._calls[-length * (rounds + 1) : len(self._calls) - length * rounds] == cycle:
            rounds += 1
        return rounds


def fingerprint(step: Step) -> str:
    """Tool, canonical arguments and result, hashed. Two calls that differ in the order of keys only are the same."""
    parts = [step.tool, step.input, step.status, step.output]
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
