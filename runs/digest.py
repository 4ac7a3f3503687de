"""The digest that binds an approval to exactly what was shown (ARCHITECTURE, invariant 1)."""

from __future__ import annotations

import hashlib

import rfc8785

from runs.engine.types import JsonObject


def action_digest(*, tool: str, tool_version: str, args: JsonObject, run: str, policy_version: str) -> str:
    """SHA-256 in hex over canonical JSON (RFC 8785). Raises ValueError for what JSON cannot say, NaN for one."""
    canonical = rfc8785.dumps(
        {"args": args, "policy_version": policy_version, "run": run, "tool": tool, "tool_version": tool_version}
    )
    return hashlib.sha256(canonical).hexdigest()
