"""What the API takes. Unknown fields are errors: a typing mistake must not be silently ignored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from runs.engine.types import Mode
from runs.schemas import LimitsIn, ServerConfig, Strict


class RunIn(Strict):
    agent: Annotated[str, Field(min_length=1, max_length=80)]
    task: str
    mode: Mode | None = None
    limits: dict[str, Any] | None = None
    task_type: Annotated[str, Field(max_length=80)] = ""
    metadata: dict[str, Any] | None = None


class MessageIn(Strict):
    text: str


class ServerIn(ServerConfig):
    """`{transport: stdio, command, env}` or `{transport: http, url, headers}`."""


__all__ = ["LimitsIn", "MessageIn", "RunIn", "ServerIn"]
