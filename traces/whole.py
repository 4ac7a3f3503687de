"""A whole trace, read a part at a time: a run of 20,000 steps with their payloads is hundreds of megabytes as rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from runs.models import Run, Step

AT_ONCE: Final = 500  # steps
_SUMMED: Final = (
    "cost_usd",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "started_at",
    "duration_ms",
)


def steps(run: Run) -> Iterator[Step]:
    """In order, with their payloads. Nothing is held open in the database between two parts."""
    last = 0
    while True:
        part = list(run.steps.filter(seq__gt=last).select_related("payload").order_by("seq")[:AT_ONCE])
        yield from part
        if len(part) < AT_ONCE:
            return
        last = part[-1].seq


@dataclass(slots=True)
class Totals:
    """Sums of steps, as far as they were added."""

    prompt_tokens: int = 0  # with what was read from the cache and written to it
    output_tokens: int = 0
    known_cost: Decimal = Decimal(0)
    unpriced_steps: int = 0
    last_end: dt.datetime | None = None

    @classmethod
    def of(cls, run: Run) -> Totals:
        """Of all steps, without their payloads."""
        totals = cls()
        for row in run.steps.values_list(*_SUMMED, named=True):
            totals.add(row)
        return totals

    def add(self, step: Any) -> None:
        """A Step, or a row with its columns."""
        self.prompt_tokens += prompt_tokens(step)
        self.output_tokens += step.output_tokens
        if step.cost_usd is None:
            self.unpriced_steps += 1
        else:
            self.known_cost += step.cost_usd
        ended = end(step)
        self.last_end = ended if self.last_end is None else max(self.last_end, ended)

    @property
    def cost(self) -> Decimal | None:
        """The known costs; None when nothing is known but that a step has no price."""
        return None if not self.known_cost and self.unpriced_steps else self.known_cost


def prompt_tokens(step: Any) -> int:
    written = step.cache_write_5m_tokens + step.cache_write_1h_tokens
    return int(step.input_tokens + step.cache_read_tokens + written)


def end(step: Any) -> dt.datetime:
    moment: dt.datetime = step.started_at + dt.timedelta(milliseconds=step.duration_ms)
    return moment
