"""Changing a query: what facets, bars and links write into the box."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping

from traces.tree import Op, Or, Query


def quoted(value: str) -> str:
    """A value as it must be written in a query."""
    plain = re.fullmatch(r"[^\s()\"\[\]{}|*<>=]+", value) and ".." not in value and value not in ("OR", "AND", "NOT")
    if plain:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def written(field: str, value: str) -> str:
    return f"{field}:{quoted(value)}"


def joined(query: Query, more: str) -> str:
    """The query with one more condition."""
    text, bar, chart = query.text.rpartition("|") if query.by else (query.text, "", "")
    text = f"({text.strip()})" if isinstance(query.node, Or) else text.strip()
    return f"{text} {more} {bar}{chart}".strip()


def of_group(query: Query, keys: Mapping[str, str]) -> str:
    """The runs of one group of `| by …`; empty where a value is missing, which no query can name."""
    if not all(keys.values()):
        return ""
    plain = query.text.rpartition("|")[0].strip() if query.by else query.text.strip()
    own = f"({plain})" if isinstance(query.node, Or) else plain
    return " ".join(filter(None, (own, *(_one(name, value) for name, value in keys.items()))))


def _one(name: str, value: str) -> str:
    if name not in ("day", "week"):
        return written(name, value)
    last = dt.date.fromisoformat(value) + dt.timedelta(days=6 if name == "week" else 0)
    return f"started:[{value} TO {last}]"


def without(query: Query, *fields: str) -> str:
    """The query without its terms of these fields."""
    text = query.text
    for term in sorted(query.terms, key=lambda term: -term.start):
        if term.field.name in fields:
            text = text[: term.start] + text[term.end :]
    return re.sub(r"\s{2,}", " ", text).strip()


def toggled(query: Query, field: str, value: str) -> str:
    """The query with this value added to the field's alternatives, or taken out of them."""
    term = next((term for term in query.terms if term.field.name == field and term.op == Op.IS), None)
    if term is None:
        return joined(query, written(field, value))
    values = [str(known) for known in term.values]
    changed = [known for known in values if known.lower() != value.lower()]
    if len(changed) == len(values):
        changed.append(value)
    new = [quoted(known) for known in changed]
    part = "" if not new else f"{field}:{new[0]}" if len(new) == 1 else f"{field}:({' OR '.join(new)})"
    return re.sub(r"\s{2,}", " ", query.text[: term.start] + part + query.text[term.end :]).strip()


def chosen(query: Query, field: str) -> tuple[str, ...]:
    """The values of the field that the query asks for, as they are written there."""
    terms = [term for term in query.terms if term.field.name == field and term.op == Op.IS]
    return tuple(str(value) for term in terms for value in term.values)
