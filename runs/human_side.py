"""What a worker asks of the human side, a room above this one: the settings name who answers (`HUMAN_SIDE`)."""

from __future__ import annotations

import uuid
from functools import cache
from typing import Protocol, cast

from django.conf import settings
from django.utils.module_loading import import_string

from runs.engine.types import Evidence, ToolGrant


class HumanSide(Protocol):
    def evidence(self, agent_id: uuid.UUID, grant: ToolGrant) -> Evidence:
        """What people decided lately on calls of this agent that the grant would have let run alone."""
        ...


@cache
def human_side() -> HumanSide:
    return cast(HumanSide, import_string(settings.HUMAN_SIDE)())
