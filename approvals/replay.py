"""A draft's policies on what really happened: the actions of the last 30 days, routed again before it goes live."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from django.utils import timezone

from approvals import calibration
from runs.catalog import CatalogEntry, catalog
from runs.engine.policy import needs_evidence, route
from runs.engine.types import ActionStatus, Call, Evidence, Risk, Route, ToolGrant
from runs.human_side import Replay, Replayed
from runs.models import Action, Agent
from runs.schemas import AgentIn

DAYS = 30
MOST = 2000  # newest first: enough for a judgement, and a page within a second
SHOWN = 50
SAID = {ActionStatus.REJECTED: "rejected", ActionStatus.SUPERSEDED: "changed"}
COLUMNS = (
    "id", "run_id", "batch_id", "intent", "tool_call_id", "tool", "args", "reasoning", "confidence", "status", "title",
    "created_at",
)  # fmt: skip


def replay(agent: Agent, live: AgentIn, draft: AgentIn) -> Replay:
    """Nothing is asked or changed. A tool that is not known any more waits for a person, as any unknown one."""
    since = timezone.now() - dt.timedelta(days=DAYS)
    made = Action.objects.filter(run__agent=agent, supersedes__isnull=True, kind__in=["action", "unknown"])
    found = list(made.filter(created_at__gte=since).order_by("-created_at", "-id").only(*COLUMNS)[: MOST + 1])
    known = catalog(agent.team)
    before, after = _Router(agent, live, known), _Router(agent, draft, known)
    alone = newly_alone = newly_waiting = 0
    regretted: list[Replayed] = []
    waiting: list[Replayed] = []
    for action in found[:MOST]:
        was, now = before.route(action), after.route(action)
        ran, runs = was.outcome == "release", now.outcome == "release"
        alone += runs
        newly_alone += runs and not ran
        newly_waiting += ran and not runs
        if runs and action.status in SAID:
            regretted.append(_line(action, now))
        elif ran and not runs:
            waiting.append(_line(action, now))
    said = [line.said for line in regretted]
    return Replay(
        days=DAYS,
        total=len(found[:MOST]),
        alone=alone,
        newly_alone=newly_alone,
        newly_waiting=newly_waiting,
        rejected=said.count("rejected"),
        edited=said.count("changed"),
        regretted=tuple(regretted[:SHOWN]),
        waiting=tuple(waiting[:SHOWN]),
        is_cut=len(found) > MOST,
        unknown_tools=tuple(sorted({action.tool for action in found[:MOST]} - set(known))),
    )


class _Router:
    """One definition's policies, with the evidence each is shown, asked once."""

    def __init__(self, agent: Agent, definition: AgentIn, known: Mapping[str, CatalogEntry]) -> None:
        self.agent = agent
        self.known = known
        self.grants = {tool.name: tool.to_engine() for tool in definition.tools}
        self.evidence: dict[str, Evidence] = {}

    def route(self, action: Action) -> Route:
        entry = self.known.get(action.tool)
        if entry is None:
            return Route(outcome="ask", reason="this tool is not known here now", risk=Risk.HIGH, needed=1)
        grant = self.grants.get(action.tool)
        call = Call(
            intent=action.intent,
            tool_call_id=action.tool_call_id,
            tool=action.tool,
            args=action.args,
            reasoning=action.reasoning,
            confidence=action.confidence,
        )
        return route(call, entry.spec, grant, self._shown(grant))

    def _shown(self, grant: ToolGrant | None) -> Evidence | None:
        if grant is None or not needs_evidence(grant):
            return None
        if grant.name not in self.evidence:
            self.evidence[grant.name] = calibration.evidence(self.agent.id, grant)
        return self.evidence[grant.name]


def _line(action: Action, route: Route) -> Replayed:
    return Replayed(
        action=action.id,
        batch=action.batch_id,
        run=action.run_id,
        title=action.title,
        said=SAID.get(ActionStatus(action.status), ""),
        at=action.created_at,
        reason=route.reason,
    )
