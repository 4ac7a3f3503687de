"""Changing a query: what facets, bars and links write into the box."""

from __future__ import annotations

import re

from traces.tree import Op, Or, Query


def quoted(value: str) -> str:
    """A value as it must be written in a query."""
    plain = re.fullmatch(r"[^\s()\"\[\]{}|*<>=]+", value) and ".." not in value and value not in ("OR", "AND", "NOT")
    if plain:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def toggled(query: Query, field: str, value: str) -> str:
    """The query with this value added to the field's alternatives, or taken out of them."""
    term = next((term for term in query.terms if term.field.name == field and term.op == Op.IS), None)
    if term is None:
        alone = not isinstance(query.node, Or)
        text = query.text.strip() if alone else f"({query.text.strip()})"
        return f"{text} {field}:{quoted(value)}".strip()
    values = [str(known) for known in term.values]
    changed = [known for known in values if known.lower() != value.lower()]
    if len(changed) == len(values):
        changed.append(value)
    written = [quoted(known) for known in changed]
    part = "" if not written else f"{field}:{written[0]}" if len(written) == 1 else f"{field}:({' OR '.join(written)})"
    return re.sub(r"\s{2,}", " ", query.text[: term.start] + part + query.text[term.end :]).strip()


def chosen(query: Query, field: str) -> tuple[str, ...]:
    """The values of the field that the query asks for, as they are written there."""
    terms = [term for term in query.terms if term.field.name == field and term.op == Op.IS]
    return tuple(str(value) for term in terms for value in term.values)
