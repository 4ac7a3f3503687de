"""A proposed action of a dry run as the report shows it. What its arguments contradict in a preview is not shown."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from runs.models import Action

SHOWN_ROWS = 20
HIDDEN = {"type", "irreversible"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """`facts` are single values of the tool's plan, `changes` its fields before and after, `table` its rows."""

    id: uuid.UUID
    title: str
    tool: str
    risk: str
    confidence: float | None
    needed: int
    route_reason: str
    irreversible: bool
    reasoning: str
    facts: tuple[tuple[str, str], ...]
    changes: tuple[dict[str, str], ...]
    columns: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]
    more_rows: int
    arguments: tuple[tuple[str, str], ...]


def proposal(action: Action) -> Proposal:
    preview: dict[str, Any] = action.preview if isinstance(action.preview, dict) else {}
    table = [tuple(text(cell) for cell in row) for row in _lists(preview.get("rows"))]
    return Proposal(
        id=action.id,
        title=action.title,
        tool=action.tool,
        risk=action.risk,
        confidence=action.confidence,
        needed=action.needed,
        route_reason=action.route_reason,
        irreversible=action.irreversible,
        reasoning=action.reasoning,
        facts=_facts(preview),
        changes=tuple(
            {"field": text(each.get("field")), "now": text(each.get("now")), "after": text(each.get("after"))}
            for each in preview.get("fields") or []
            if isinstance(each, dict)
        ),
        columns=tuple(text(column) for column in preview.get("columns") or []),
        table=tuple(table[:SHOWN_ROWS]),
        more_rows=max(0, len(table) - SHOWN_ROWS),
        arguments=tuple((name, text(value)) for name, value in action.args.items()),
    )


def text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _facts(preview: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    single = [(_name(name), text(value)) for name, value in preview.items() if _is_single(name, value)]
    lines = [each for each in preview.get("lines") or [] if isinstance(each, dict)]
    return (*single, *((text(each.get("label")), text(each.get("amount"))) for each in lines))


def _is_single(name: str, value: Any) -> bool:
    return name not in HIDDEN and isinstance(value, str | int | float | bool) and value != ""


def _name(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _lists(value: Any) -> list[list[Any]]:
    return [row for row in value if isinstance(row, list)] if isinstance(value, list) else []
