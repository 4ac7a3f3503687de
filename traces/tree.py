"""A query as a tree, and the error of one that can't be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from runs.words import words
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
    EXACT = "exact"  # the very same, letter case included; of a text: nothing but these words
    ANY = "any"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    BETWEEN = "between"  # from the first value to the second, both included; for times the second is left out


@dataclass(frozen=True, slots=True)
class Text:
    """Words side by side; with `prefix` the last one may go on."""

    words: tuple[str, ...]
    prefix: bool = False


def text_of(raw: str) -> Text:
    """As it is looked for. A star at the end lets the last word go on."""
    return Text(tuple(words(raw)), prefix=raw.endswith("*"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """Text to be found anywhere in a run, or in a step. `start` and `end` are positions in the query."""

    text: str
    phrase: bool
    start: int
    end: int

    @property
    def wanted(self) -> Text:
        return Text(tuple(words(self.text))) if self.phrase else text_of(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """`values` holds one value, two for BETWEEN, none for ANY, and for IS any number, of which one must hold."""

    field: Field
    op: Op
    values: tuple[Value, ...]
    said: str
    start: int
    end: int

    @property
    def texts(self) -> tuple[Text, ...]:
        """Of a text field: what is looked for, of which one must be found."""
        return tuple(text_of(str(value)) for value in self.values)


@dataclass(frozen=True, slots=True)
class Not:
    node: Node


@dataclass(frozen=True, slots=True)
class And:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Steps of one run, each with the conditions of its node. Of two neighbours the second is later than the first,
    or where `next_ones` says so the very next. One step alone is a sequence too."""

    steps: tuple[Node, ...]
    next_ones: tuple[bool, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Count:
    """How many steps begin such a sequence. `values` holds one number, or two for BETWEEN."""

    sequence: Sequence
    op: Op
    values: tuple[int, ...]
    said: str


Node = Word | Term | Not | And | Or | Sequence | Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """`by` names the fields of a chart (`| by type,day`); the list of runs needs none."""

    text: str
    node: Node | None
    reading: str
    by: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[Text, ...]:
        """What a match should be marked for: what is asked for, not what is excluded."""
        return tuple(dict.fromkeys(_wanted(self.node, of_note=False)))

    @property
    def note_texts(self) -> tuple[Text, ...]:
        """The same of people's notes."""
        return tuple(dict.fromkeys(_wanted(self.node, of_note=True)))

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms that hold for every result: what a facet may change in place."""
        return tuple(node for node in self.conditions if isinstance(node, Term))

    @property
    def conditions(self) -> tuple[Node, ...]:
        """What must all hold."""
        if self.node is None:
            return ()
        return self.node.nodes if isinstance(self.node, And) else (self.node,)


def _wanted(node: Node | None, *, of_note: bool) -> Iterator[Text]:
    if isinstance(node, Word):
        yield from () if of_note else (node.wanted,)
    elif isinstance(node, Term) and node.field.type == Type.TEXT and node.field.of_note is of_note:
        yield from node.texts
    elif isinstance(node, And | Or):
        for child in node.nodes:
            yield from _wanted(child, of_note=of_note)
    elif isinstance(node, Sequence):
        for step in node.steps:
            yield from _wanted(step, of_note=of_note)
    elif isinstance(node, Count):
        yield from _wanted(node.sequence, of_note=of_note)
