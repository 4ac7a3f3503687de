"""A query as a tree, and the error of one that can't be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from traces.fields import Field, Type, Value


class QueryError(ValueError):
    """A query that can't be read. `suggestion` replaces the characters from `position` to `end`."""

    def __init__(self, message: str, position: int, end: int | None = None, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        self.end = max(position, position if end is None else end)
        self.suggestion = suggestion

    def fixed(self, text: str) -> str | None:
        """The whole query with the suggestion in its place."""
        return None if self.suggestion is None else text[: self.position] + self.suggestion + text[self.end :]


class Op(StrEnum):
    IS = "is"
    ANY = "any"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    BETWEEN = "between"  # from the first value to the second, both included; for times the second is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Text to be found anywhere in a run. `start` and `end` are positions in the query."""

    text: str
    phrase: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """`values` holds one value, two for BETWEEN, none for ANY, and for IS any number, of which one must hold."""

    field: Field
    op: Op
    values: tuple[Value, ...]
    said: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Not:
    node: Node


@dataclass(frozen=True, slots=True)
class And:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    nodes: tuple[Node, ...]


Node = Word | Term | Not | And | Or


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    text: str
    node: Node | None
    reading: str

    @property
    def words(self) -> tuple[str, ...]:
        """What a match should be highlighted for: words that are asked for, not those that are excluded."""
        return tuple(dict.fromkeys(_wanted(self.node)))

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms that hold for every result: what a facet may change in place."""
        nodes = self.node.nodes if isinstance(self.node, And) else (self.node,)
        return tuple(node for node in nodes if isinstance(node, Term))


def _wanted(node: Node | None) -> Iterator[str]:
    if isinstance(node, Word):
        yield node.text
    elif isinstance(node, Term) and node.field.type == Type.TEXT:
        yield from (str(value) for value in node.values)
    elif isinstance(node, And | Or):
        for child in node.nodes:
            yield from _wanted(child)
