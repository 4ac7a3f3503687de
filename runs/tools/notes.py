"""`notes.write`: what an agent wants to keep in sight. The step that records the call is the note."""

from __future__ import annotations

from runs.engine.types import Effect, JsonObject, Risk, ToolPlan, ToolResult
from runs.tools.base import BuiltinTool, builtin_spec

SUMMARY_CHARACTERS = 80


class WriteNote(BuiltinTool):
    def __init__(self) -> None:
        schema: JsonObject = {
            "type": "object",
            "properties": {
                "text": {
                    "type": "string",
                    "description": "What to note, in plain words.",
                    "minLength": 1,
                    "maxLength": 10_000,
                }
            },
            "required": ["text"],
            "additionalProperties": False,
        }
        description = "Record a note in this run for the people who read it. Changes nothing outside the run."
        super().__init__(builtin_spec("notes.write", description, schema, Effect.WRITE, risk=Risk.LOW, can_plan=True))

    def plan(self, args: JsonObject) -> ToolPlan | None:
        text = str(args["text"])
        shown = text if len(text) <= SUMMARY_CHARACTERS else f"{text[: SUMMARY_CHARACTERS - 1]}…"
        fields = [{"field": "note", "now": None, "after": text}]
        return ToolPlan(
            summary=f"Write a note: {shown}",
            preview={"type": "record", "record": "this run", "fields": fields, "irreversible": False},
        )

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        del idempotency_key, timeout_s
        return ToolResult(content={"noted": args["text"]})
