"""What the API takes. Unknown fields are errors: a typing mistake must not be silently ignored."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from pydantic import Field, model_validator

from runs.engine.types import Mode
from runs.schemas import AgentIn, LimitsIn, ServerConfig, Strict

# What an answer says of an agent beyond its definition.
ONLY_ANSWERED = frozenset({"slug", "version", "created_at", "updated_at"})


class AgentPut(AgentIn):
    """An agent as it is written, or as `GET` answers it: read, changed and put back, under another slug too."""

    @model_validator(mode="before")
    @classmethod
    def _as_answered(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if k not in ONLY_ANSWERED} if isinstance(data, dict) else data


class RunIn(Strict):
    agent: Annotated[str, Field(min_length=1, max_length=80)]
    task: str
    mode: Mode | None = None
    limits: dict[str, Any] | None = None
    task_type: Annotated[str, Field(max_length=80)] = ""
    metadata: dict[str, Any] | None = None


class ForkIn(Strict):
    """`replace_output` that is given, null included, is the output of the step `from_seq`. No task: the run's own."""

    from_seq: Annotated[int, Field(ge=1, le=2**31 - 1)]
    agent: Annotated[str, Field(max_length=80)] | None = None
    task: Annotated[str, Field(min_length=1)] | None = None
    model: Annotated[str, Field(max_length=120)] | None = None
    replace_output: Any = None


class PickIn(Strict):
    id: uuid.UUID
    digest: Annotated[str, Field(min_length=1, max_length=64)]


class ExecuteIn(Strict):
    actions: Annotated[list[PickIn], Field(min_length=1, max_length=1000)]


class MessageIn(Strict):
    text: str


class ServerIn(ServerConfig):
    """`{transport: stdio, command, env}` or `{transport: http, url, headers}`."""


__all__ = ["AgentPut", "ExecuteIn", "ForkIn", "LimitsIn", "MessageIn", "PickIn", "RunIn", "ServerIn"]
