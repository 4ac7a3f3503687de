"""Circuit breakers: one for each tool server and each model, shared by all workers.

Closed: calls are made, failures in a row are counted. Open: nothing is called until a time that the model is told.
Half open: one call is let through; it closes the breaker or opens it for longer. Values and transitions only; who keeps
them swaps the old value for the new one, and asks again when somebody else was faster.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from enum import StrEnum

FAILURES = 5
COOLDOWN_S = 30.0
LONGEST_COOLDOWN_S = 600.0
TOLD_S = 10.0
PROBE_S = 90.0  # a probe whose worker died holds others back no longer than this
ASK_AGAIN_S = 5.0  # while somebody else's probe is under way


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """`opened` counts the openings since it was last closed; `until` ends an opening, or a probe that is under way."""

    state: State = State.CLOSED
    failures: int = 0
    opened: int = 0
    until: dt.datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Why nothing is called, and until when."""

    until: dt.datetime
    reason: str

    @property
    def words(self) -> str:
        """`unavailable until 14:05:30 UTC (the last 5 calls failed: no answer within 30 s)`"""
        until = self.until.astimezone(dt.UTC)
        return f"unavailable until {until:%H:%M:%S} UTC" + (f" ({self.reason})" if self.reason else "")


def refusal(breaker: Breaker, now: dt.datetime) -> Unavailable | None:
    """None when a call may be made now, as a probe perhaps."""
    if breaker.state is State.CLOSED or breaker.until is None or breaker.until <= now:
        return None
    until = breaker.until
    if breaker.state is State.HALF_OPEN:
        until = min(until, now + dt.timedelta(seconds=ASK_AGAIN_S))
    return Unavailable(until=until, reason=breaker.reason)


def entered(breaker: Breaker, now: dt.datetime) -> Breaker:
    """After a call that was not refused has begun: beside it, nothing goes through a breaker that was open."""
    if breaker.state is State.CLOSED:
        return breaker
    return replace(breaker, state=State.HALF_OPEN, until=now + dt.timedelta(seconds=PROBE_S))


def worked(breaker: Breaker) -> Breaker:
    return Breaker() if breaker != Breaker() else breaker


def failed(breaker: Breaker, now: dt.datetime, reason: str, retry_after_s: float | None = None) -> Breaker:
    """A failed probe opens it for twice as long. `retry_after_s` is the other side's own word: a long one opens it at
    once, a short one concerns only who was told."""
    failures = breaker.failures + 1
    told = retry_after_s if retry_after_s is not None and retry_after_s >= TOLD_S else None
    if breaker.state is State.OPEN:  # a call that began before it opened
        return replace(breaker, failures=failures)
    if breaker.state is State.CLOSED and failures < FAILURES and told is None:
        return replace(breaker, failures=failures, reason=reason)
    cooldown = min(LONGEST_COOLDOWN_S, COOLDOWN_S * 2**breaker.opened)
    calls = "the last call" if failures == 1 else f"the last {failures} calls"
    return Breaker(
        state=State.OPEN,
        failures=failures,
        opened=breaker.opened + 1,
        until=now + dt.timedelta(seconds=told or cooldown),
        reason=f"{calls} failed: {reason}"[:300],
    )


def ready(breaker: Breaker, now: dt.datetime) -> Breaker:
    """A person wants no more waiting: the next call is let through as a probe."""
    return breaker if refusal(breaker, now) is None else replace(breaker, state=State.OPEN, until=now)


class NeverOpen:
    """For whoever has no breakers."""

    def peek(self, name: str) -> Unavailable | None:
        del name
        return None

    def enter(self, name: str) -> Unavailable | None:
        del name
        return None

    def worked(self, name: str) -> None:
        pass

    def failed(self, name: str, reason: str, retry_after_s: float | None = None) -> None:
        pass
