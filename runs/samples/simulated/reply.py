"""What a fake model may answer: content, or one of the ways in which a Messages API goes wrong."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

JsonObject = dict[str, Any]

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool_use block. `raw_input`, when given, is streamed instead of the JSON of `input`."""

    name: str
    input: JsonObject = field(default_factory=dict)
    id: str = ""
    raw_input: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer to POST /v1/messages.

    Content is `text`, then `tools`, in that order; `data` is sent as JSON text; `blocks` replaces all of these.
    `stop_reason` and `usage` are worked out unless given (`usage` may name only some of the numbers); a stream sends an
    empty `stop_reason` as null.
    `cut_after`, `error_after` and `stall_after` count content deltas; 0 is right after message_start, and a count past
    the last delta means before message_delta. Seconds everywhere.
    """

    text: str = ""
    tools: Sequence[ToolCall] = ()
    data: Any = None
    blocks: Sequence[JsonObject] | None = None
    stop_reason: str | None = None
    stop_details: JsonObject | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0

    status: int = 200
    error_type: str | None = None
    error_message: str = "simulated failure"
    retry_after: float | None = None
    raw_body: str | None = None
    content_type: str = "text/html; charset=utf-8"

    drop: bool = False
    cut_after: int | None = None
    error_after: int | None = None
    stall_after: int | None = None
    stall_s: float = 0.0
    omit_stop: bool = False

    @classmethod
    def error(
        cls,
        status: int,
        error_type: str | None = None,
        *,
        message: str = "simulated failure",
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        return cls(
            status=status, error_type=error_type, error_message=message, retry_after=retry_after, headers=headers or {}
        )

    @classmethod
    def raw(cls, body: str, *, status: int = 200, content_type: str = "text/html; charset=utf-8") -> Reply:
        """A body that is no Messages answer at all: a proxy's page, broken JSON, nothing."""
        return cls(raw_body=body, status=status, content_type=content_type)

    @property
    def is_error(self) -> bool:
        return self.status >= 400


def error_body(status: int, error_type: str | None, message: str, request_id: str) -> JsonObject:
    kind = error_type or ERROR_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def new_tool_id() -> str:
    return f"toolu_{uuid.uuid4().hex[:24]}"
