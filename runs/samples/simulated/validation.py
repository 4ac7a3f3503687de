"""What the real API refuses with 400. A fake that forgives would hide an engine's mistakes."""

from __future__ import annotations

import re
from typing import Any

from runs.samples.simulated.billing import blocks_of
from runs.samples.simulated.reply import JsonObject

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
REMOVED = ("temperature", "top_p", "top_k")
MAX_CACHE_MARKS = 4


class BadRequest(Exception):
    """The message that goes into the 400."""


def check(body: Any, *, counting: bool = False) -> JsonObject:
    """The body, or `BadRequest` in the API's own words where they are known."""
    if not isinstance(body, dict):
        raise BadRequest("The request body is not valid JSON.")
    for name in ("model", "messages") if counting else ("model", "max_tokens", "messages"):
        if name not in body:
            raise BadRequest(f"{name}: Field required")
    for name in REMOVED:
        if name in body:
            raise BadRequest(f"{name}: Extra inputs are not permitted")
    maximum = body.get("max_tokens", 0)
    if not isinstance(maximum, int) or isinstance(maximum, bool) or maximum < 0:
        raise BadRequest("max_tokens: Input should be greater than or equal to 0")
    _check_tools(body.get("tools") or [])
    _check_messages(body["messages"])
    _check_marks(body)
    return body


def _check_tools(tools: Any) -> None:
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
            raise BadRequest(f"tools.{index}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if name in seen:
            raise BadRequest("tools: Tool names must be unique.")
        seen.add(name)
        if "type" not in tool and not isinstance(tool.get("input_schema"), dict):
            raise BadRequest(f"tools.{index}.input_schema: Field required")


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages: at least one message is required")
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant", "system"):
            raise BadRequest(f"messages.{index}.role: Input should be 'user', 'assistant' or 'system'")
        blocks = blocks_of(message.get("content"))
        if not blocks:
            raise BadRequest(f"messages.{index}: all messages must have non-empty content")
        _check_text(index, blocks)
        open_calls = _check_pairing(index, role, blocks, open_calls)
    if messages[0]["role"] != "user":
        raise BadRequest("messages: first message must use the 'user' role")
    if messages[-1]["role"] == "assistant":
        raise BadRequest("This model does not support assistant message prefill.")


def _check_text(index: int, blocks: list[JsonObject]) -> None:
    for block in blocks:
        if block.get("type") == "text" and not str(block.get("text") or "").strip():
            raise BadRequest(f"messages.{index}: text content blocks must contain non-whitespace text")


def _check_pairing(index: int, role: str, blocks: list[JsonObject], open_calls: list[str]) -> list[str]:
    """Every tool_use is answered once, in the very next message; returns the calls that are open after this one."""
    results = [str(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"]
    for identifier in results:
        if role != "user" or identifier not in open_calls:
            raise BadRequest(
                f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: {identifier}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
    if len(set(results)) != len(results):
        raise BadRequest(f"messages.{index}: each tool_use must have a single result.")
    missing = [identifier for identifier in open_calls if identifier not in results]
    if missing:
        raise BadRequest(
            f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
            "message."
        )
    calls = [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
    if len(set(calls)) != len(calls):
        raise BadRequest(f"messages.{index}: `tool_use` ids must be unique")
    return calls


def _check_marks(body: JsonObject) -> None:
    holders = [*(body.get("tools") or []), *blocks_of(body.get("system"))]
    for message in body["messages"]:
        holders += blocks_of(message.get("content"))
    marks = sum(1 for holder in holders if holder.get("cache_control")) + bool(body.get("cache_control"))
    if marks > MAX_CACHE_MARKS:
        raise BadRequest(f"A maximum of {MAX_CACHE_MARKS} blocks with cache_control may be provided. Found {marks}.")
