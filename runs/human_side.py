"""What runs ask of the human side, a room above this one: the settings name who answers (`HUMAN_SIDE`)."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast

from django.conf import settings
from django.utils.module_loading import import_string

from accounts.access import Access
from runs.engine.types import Call, Evidence, Route, ToolGrant, ToolSpec
from runs.models import Action, Agent, Run
from runs.schemas import AgentIn


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Decided calls whose confidence was from `low` up to `high` (shares of 1)."""

    low: float
    high: float
    approved: int = 0
    edited: int = 0
    rejected: int = 0

    @property
    def decided(self) -> int:
        return self.approved + self.edited + self.rejected

    @property
    def agreed(self) -> float | None:
        return self.approved / self.decided if self.decided else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolHistory:
    """What became of the actions of one tool: how many ran alone, and what people said of those they were asked."""

    alone: int = 0
    approved: int = 0
    edited: int = 0
    rejected: int = 0
    buckets: tuple[Bucket, ...] = ()

    @property
    def decided(self) -> int:
        return self.approved + self.edited + self.rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One past action under a draft's policies. `said`: what a person did with it, "" when nobody was asked."""

    action: uuid.UUID
    batch: uuid.UUID | None
    run: uuid.UUID
    title: str
    said: str
    at: dt.datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Past actions routed again: `alone` of them run alone under the draft, `newly_alone` and `newly_waiting` are what
    it changes against the live policies. `regretted` would run alone though people rejected or changed them.
    """

    days: int
    total: int
    alone: int
    newly_alone: int
    newly_waiting: int
    rejected: int
    edited: int
    regretted: tuple[Replayed, ...] = ()
    waiting: tuple[Replayed, ...] = ()
    is_cut: bool = False
    unknown_tools: tuple[str, ...] = ()


class HumanSide(Protocol):
    def evidence(self, agent_id: uuid.UUID, grant: ToolGrant) -> Evidence:
        """What people decided lately on calls of this agent that the grant would have let run alone."""
        ...

    def standing(self, run: Run, call: Call, tool: ToolSpec, chosen: Route) -> Route:
        """`chosen`, or a release by what a person allowed in advance. Takes a use of it, once for each call, within the
        caller's transaction."""
        ...

    def give_back(self, run_id: uuid.UUID, intent: str) -> None:
        """The use of a call that came to nothing before there was an action."""
        ...

    def released_in_advance(self, action: Action) -> None:
        """Writes the decision of a use, in the transaction that stores the action it released."""
        ...

    def still_stands(self, action: Action) -> bool:
        """Whether what released this action in advance was not taken back; true where nothing did."""
        ...

    def ran_alone(self, action: Action, share: float) -> None:
        """A share of these is looked at later."""
        ...

    def history(self, agent: Agent) -> dict[str, ToolHistory]:
        """By tool: the last 30 days, with confidence against what people decided."""
        ...

    def waiting_for(self, access: Access) -> int:
        """Batches that this person can act on: the figure beside Approvals in the frame."""
        ...

    def replay(self, agent: Agent, live: AgentIn, draft: AgentIn) -> Replay:
        """The actions of the last 30 days, routed again under both."""
        ...


@cache
def human_side() -> HumanSide:
    return cast(HumanSide, import_string(settings.HUMAN_SIDE)())
