"""Pydantic types of the JSON columns of this app, and the words that are stored in its columns."""

from __future__ import annotations

from enum import StrEnum

from pydantic import JsonValue, TypeAdapter


class Role(StrEnum):
    """A ladder: each role has every right of those below it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"


class Separation(StrEnum):
    """Whether who launched a run may approve its risky actions. `auto`: only where nobody else could."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Scope(StrEnum):
    """What a token may do at most. The rights of its user's role limit it further."""

    READ = "read"
    RUNS = "runs"
    APPROVALS = "approvals"
    AGENTS = "agents"


type_of_scopes = TypeAdapter(list[Scope])
"""`ApiToken.scopes`."""

type_of_payload = TypeAdapter(dict[str, JsonValue])
"""`Receipt.payload`: what a reader needs to know of the event. Each kind has its own keys."""

type_of_response = TypeAdapter[JsonValue](JsonValue)
"""`IdempotentRequest.response`: the text of a body exactly as it was answered."""
