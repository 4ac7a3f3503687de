"""A query in words, as it was understood: printed under the box, so that nothing is misread in silence."""

from __future__ import annotations

import datetime as dt

from traces import fields
from traces.fields import ORDERED, Field, Type, Value
from traces.tree import And, Count, Node, Not, Op, Sequence, Term, Word
from traces.vocabulary import HAS, IS, STEP_HAS, STEP_IS


def read_aloud(node: Node | None, by: tuple[str, ...] = ()) -> str:
    """The query in words, as it was understood."""
    grouped = f", grouped by {' and '.join(by)}" if by else ""
    if node is None:
        return f"All runs{grouped or ', newest first'}"
    return f"Runs where {_clause(node, top=True)}{grouped}"


def _clause(node: Node, *, top: bool = False, denied: bool = False) -> str:
    if isinstance(node, Word):
        return f"{'no text mentions' if denied else 'some text mentions'} {_said_word(node)}"
    if isinstance(node, Sequence):
        return f"there is {'no' if denied else 'a'} step where {_steps(node)}"
    if isinstance(node, Count):
        return f"there are {'not ' if denied else ''}{node.said} steps where {_steps(node.sequence)}"
    if isinstance(node, Term):
        return (node.field.denies if denied else node.field.says).format(node.said)
    if isinstance(node, Not):
        inner = node.node
        if isinstance(inner, Word | Term | Sequence | Count):
            return _clause(inner, denied=not denied)
        return f"{'' if denied else 'not '}({_clause(inner, top=True)})"
    clauses = [_clause(child) for child in node.nodes]
    last = " and " if isinstance(node, And) else " or "
    joined = last.join((", ".join(clauses[:-1]), clauses[-1]))
    return joined if top else f"({joined})"


def _said_word(node: Word) -> str:
    return f"a word that begins with “{node.text[:-1]}”" if node.wanted.prefix else f"“{node.text}”"


def _steps(node: Sequence) -> str:
    said = _clause(node.steps[0], top=True)
    for is_next, step in zip(node.next_ones, node.steps[1:], strict=True):
        said += f", {'right after it' if is_next else 'later'} one where {_clause(step, top=True)}"
    return said


_ANY = {"has": "anything of note"} | dict.fromkeys(
    ("reasoning", "output", "input", "error", "task", "plan", "note"), "anything"
)
_OVER = {Op.GT: "over ", Op.GTE: "at least ", Op.LT: "under ", Op.LTE: "at most "}


def comparison(field: Field, op: Op, values: tuple[Value, ...], raws: list[str]) -> str:
    if op == Op.ANY:
        return "recorded" if field.type in ORDERED else _ANY.get(field.name, "any")
    if field.type == Type.TIME:
        return _when(op, values, raws)
    shown = [_shown(field, value) for value in values]
    if op == Op.BETWEEN:
        return f"from {shown[0]} to {shown[1]}"
    if op == Op.EXACT:
        return "exactly " + " or ".join(shown)
    if op == Op.IS:
        return " or ".join(shown)
    if field.type == Type.LEVEL:
        return {Op.GT: "above {}", Op.GTE: "{} or above", Op.LT: "below {}", Op.LTE: "{} or below"}[op].format(shown[0])
    return _OVER[op] + shown[0]


def _when(op: Op, values: tuple[Value, ...], raws: list[str]) -> str:
    stamps = [f"{value:%-d %b %Y %H:%M}" for value in values if isinstance(value, dt.datetime)]
    if op == Op.BETWEEN:
        return f"from {stamps[0]} to {stamps[1]}"
    raw = raws[0].removeprefix("-")
    ago = fields.span_ms(raw) is not None
    if op == Op.GTE:
        return f"in the last {raw}" if ago else f"from {stamps[0]} on"
    return f"more than {raw} ago" if ago else f"before {stamps[0]}"


def _shown(field: Field, value: Value) -> str:
    if field.name == "has":
        return (STEP_HAS if "reasoning" in field.choices else HAS)[str(value)]
    if field.name == "is":
        return (STEP_IS if "refused" in field.choices else IS)[str(value)]
    if field.type == Type.PERCENT:
        return f"{_plain(value)}%"
    if field.type in (Type.CHOICE, Type.LEVEL):
        return str(value).replace("_", " ")
    if field.type == Type.MONEY:
        return f"${_plain(value)}"
    if field.type == Type.DURATION and isinstance(value, int):
        return _span_words(value)
    if field.type == Type.COUNT:
        return f"{value:,}"
    if field.type in (Type.SCORE, Type.NUMBER):
        return _plain(value)
    if field.type == Type.RUN:
        return f"R-{value}" if str(value).isdigit() else str(value)
    return f"“{value}”" if field.type == Type.TEXT else str(value)


def _plain(value: Value) -> str:
    text = f"{value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"{value:f}"
    whole, _, cents = text.partition(".")
    return f"{whole}.{cents.ljust(2, '0')}" if cents else whole


def _span_words(milliseconds: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if milliseconds >= size and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds / 1000:g}s"
