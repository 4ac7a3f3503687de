"""What workers ask of the inbox (`runs.human_side.HumanSide`)."""

from __future__ import annotations

import uuid

from approvals import calibration
from runs.engine.types import Evidence, ToolGrant


class WorkerSide:
    def evidence(self, agent_id: uuid.UUID, grant: ToolGrant) -> Evidence:
        return calibration.evidence(agent_id, grant)
