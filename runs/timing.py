"""How long things around a decision take: per tool of the run's agent version, else these defaults."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from runs.models import Action, Run

ASK_FOR = dt.timedelta(hours=24)
REMIND_AFTER = 0.5  # of the time there is to decide
WIDEN_AFTER = 0.75
BEFORE_DEADLINE = dt.timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """`undo`: between an approval and its effect. `expires`, `remind` and `widen` count from the question; `widen` is
    None where there is nobody else to ask. People are user names."""

    undo: dt.timedelta
    expires: dt.timedelta
    remind: dt.timedelta
    widen: dt.timedelta | None
    reviewers: tuple[str, ...]
    backup: tuple[str, ...]


def timing_of(run: Run, tool: str) -> Timing:
    tools = run.agent_version.definition.get("tools") or ()
    grant: dict[str, Any] = next((each for each in tools if each.get("name") == tool), {})
    undo, widen, remind = grant.get("undo_s"), grant.get("widen_s"), grant.get("remind_s")
    expires = _seconds(grant.get("expires_s")) or ASK_FOR
    backup = tuple(grant.get("backup") or ())
    return Timing(
        undo=dt.timedelta(seconds=settings.AGENTSITE_UNDO_SECONDS if undo is None else undo),
        expires=expires,
        remind=_seconds(remind) or expires * REMIND_AFTER,
        widen=(_seconds(widen) or expires * WIDEN_AFTER) if backup else None,
        reviewers=tuple(grant.get("reviewers") or ()),
        backup=backup,
    )


def of_batch(run: Run, tools: Iterable[str]) -> Timing:
    """What a batch of these tools' actions keeps to: the earliest of each time, everybody who is named."""
    each = [timing_of(run, tool) for tool in dict.fromkeys(tools)] or [timing_of(run, "")]
    widen = [timing.widen for timing in each if timing.widen is not None]
    return Timing(
        undo=max(timing.undo for timing in each),
        expires=min(timing.expires for timing in each),
        remind=min(timing.remind for timing in each),
        widen=min(widen, default=None),
        reviewers=tuple(dict.fromkeys(name for timing in each for name in timing.reviewers)),
        backup=tuple(dict.fromkeys(name for timing in each for name in timing.backup)),
    )


def starts_at(run: Run, action: Action, now: dt.datetime) -> dt.datetime | None:
    """When an action that is approved now may begin; None for at once. The wait ends before the deadline does."""
    due = now + timing_of(run, action.tool).undo
    if action.expires_at is not None:
        due = min(due, action.expires_at - BEFORE_DEADLINE)
    return due if due > now else None


def _seconds(value: int | None) -> dt.timedelta | None:
    return None if value is None else dt.timedelta(seconds=value)
