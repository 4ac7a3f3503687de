"""`output.read`: the rest of an output that was too large to be given to the model whole."""

from __future__ import annotations

from runs.engine.outputs import READER, matches, piece, stored
from runs.engine.ports import Journal
from runs.engine.types import Effect, JsonObject, Risk, ToolResult
from runs.tools.base import BuiltinTool, builtin_spec

SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "handle": {"type": "string"},
        "offset": {"type": "integer"},
        "find": {"type": "string"},
    },
    "required": ["handle"],
    "additionalProperties": False,
}
# Every agent is sent this with every call, so it is brief: a shortened result itself says how to read on.
DESCRIPTION = "Reads on in a shortened result, or finds a text in it."


class ReadOutput(BuiltinTool):
    """Of one run: its journal is where the outputs are."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(builtin_spec(READER, DESCRIPTION, SCHEMA, Effect.READ, risk=Risk.LOW))
        self._journal = journal

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        del idempotency_key, timeout_s
        text = stored(self._journal, str(args["handle"]))
        if text is None:
            return ToolResult(content=f"There is no output under {args['handle']!r} in this run.", is_error=True)
        offset = max(0, int(args.get("offset", 0)))
        wanted = args.get("find")
        return ToolResult(content=matches(text, str(wanted), offset) if wanted else piece(text, offset))
