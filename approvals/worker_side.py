"""What runs ask of the inbox (`runs.human_side.HumanSide`)."""

from __future__ import annotations

import uuid

from accounts.access import Access
from approvals import calibration, grants, inbox, replay, sampling
from runs.engine.types import Call, Evidence, Route, ToolGrant, ToolSpec
from runs.human_side import Replay, ToolHistory
from runs.models import Action, Agent, Run
from runs.schemas import AgentIn


class WorkerSide:
    def evidence(self, agent_id: uuid.UUID, grant: ToolGrant) -> Evidence:
        return calibration.evidence(agent_id, grant)

    def history(self, agent: Agent) -> dict[str, ToolHistory]:
        return calibration.history(agent.id)

    def waiting_for(self, access: Access) -> int:
        return inbox.open_count(access)

    def replay(self, agent: Agent, live: AgentIn, draft: AgentIn) -> Replay:
        return replay.replay(agent, live, draft)

    def standing(self, run: Run, call: Call, tool: ToolSpec, chosen: Route) -> Route:
        return grants.route(run, call, tool, chosen)

    def give_back(self, run_id: uuid.UUID, intent: str) -> None:
        grants.give_back(run_id, intent)

    def released_in_advance(self, action: Action) -> None:
        grants.decide(action)

    def still_stands(self, action: Action) -> bool:
        return grants.still_stands(action)

    def ran_alone(self, action: Action, share: float) -> None:
        sampling.draw(action, share)
