"""`time.now`: models do not know the date."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from runs.engine.types import Effect, JsonObject, Risk, ToolResult
from runs.tools.base import BuiltinTool, builtin_spec


class TimeNow(BuiltinTool):
    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        schema: JsonObject = {
            "type": "object",
            "properties": {
                "timezone": {"type": "string", "description": "IANA name, for example Europe/Rome. UTC when left out."}
            },
            "additionalProperties": False,
        }
        about = "The current date and time."
        super().__init__(builtin_spec("time.now", about, schema, Effect.READ, risk=Risk.LOW, repeatable=True))
        self._now = now

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        del idempotency_key, timeout_s
        name = str(args.get("timezone", "UTC"))
        try:
            zone = ZoneInfo(name)
        except (ValueError, OSError, LookupError):  # a path, a directory, a name that is not there
            return ToolResult(content=f"There is no time zone named {name!r}.", is_error=True)
        local = self._now().astimezone(zone)
        return ToolResult(content={"now": local.isoformat(timespec="seconds"), "weekday": local.strftime("%A")})
