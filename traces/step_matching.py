"""The conditions within `step:{…}` on one document, in SQL; and what an index can find of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import and_, or_
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.lookups import Exact, GreaterThan, GreaterThanOrEqual, LessThan, LessThanOrEqual

from runs.asked import Note
from runs.engine.types import Risk
from runs.models import Action, SearchDocument
from runs.words import words
from traces import names, text_index
from traces.fields import Type
from traces.scope import Scope
from traces.text_index import Requirement
from traces.tree import And, Count, Node, Not, Op, Or, Term, Text, Word
from traces.vocabulary import APPROVALS, FAILED_STEP

Compared = Callable[[Any, Any], Any]
_COMPARE: dict[Op, Compared] = {
    Op.IS: Exact,
    Op.GT: GreaterThan,
    Op.GTE: GreaterThanOrEqual,
    Op.LT: LessThan,
    Op.LTE: LessThanOrEqual,
}


INDEXED = ("tool", "model", "status", "kind")
"""Columns with an index, the most telling first. Only documents of steps have a value there."""


def condition(node: Node, scope: Scope) -> Q:
    """On documents of steps."""
    if isinstance(node, Word):
        return text_index.holds(node.wanted)
    if isinstance(node, Term):
        found: Q = _TERMS[node.field.name](node, scope)
        return found
    if isinstance(node, Not):
        return ~condition(node.node, scope)
    join = and_ if isinstance(node, And) else or_
    return reduce(join, (condition(child, scope) for child in node.nodes))  # type: ignore[union-attr]


def of_step(node: Node, scope: Scope) -> Q:
    """The same, and the document is a step's: which is not said where only a step's can match, so that an index that
    has no number in it is enough."""
    holds = condition(node, scope)
    return holds if is_indexed(node) else Q(seq__gt=0) & holds


def is_indexed(node: Node) -> bool:
    """An index by a column says all of it."""
    return isinstance(node, Term) and node.field.name in INDEXED and node.op != Op.ANY


def required(node: Node) -> list[Requirement]:
    """Texts that every matching document holds: what the index of words is asked for."""
    if isinstance(node, Word):
        return [(node.wanted,)]
    if isinstance(node, Term) and node.field.of_note:
        return []
    if isinstance(node, Term) and node.field.type == Type.TEXT and node.op in (Op.IS, Op.EXACT):
        return [node.texts]
    if isinstance(node, Term) and node.field.key and node.field.name == "eval":
        return [(Text(tuple(words(node.field.key))),)] if words(node.field.key) else []
    if isinstance(node, And):
        return [requirement for child in node.nodes for requirement in required(child)]
    if isinstance(node, Or):
        each = [required(child) for child in node.nodes]
        return [tuple(text for found in each for text in found[0])] if all(each) else []
    return []


def selective(node: Node, scope: Scope) -> Q | None:
    """The one condition on a column with an index, or on notes, that holds for every match; None without one."""
    if isinstance(node, Term) and node.field.of_note:
        return condition(node, scope)
    if isinstance(node, Term) and node.field.name in INDEXED and node.op != Op.ANY:
        return condition(node, scope)
    if isinstance(node, And):
        noted = next((child for child in node.nodes if isinstance(child, Term) and child.field.of_note), None)
        if noted is not None:
            return condition(noted, scope)
        terms = [child for child in node.nodes if isinstance(child, Term) and child.field.name in INDEXED]
        for term in sorted(terms, key=lambda term: INDEXED.index(term.field.name)):
            if term.op != Op.ANY:
                return condition(term, scope)
    return None


def rare(node: Node, scope: Scope, documents: QuerySet[SearchDocument]) -> QuerySet[SearchDocument] | None:
    """The documents of steps that match, when an index gives few enough to look at each; None otherwise."""
    matching = documents.filter(of_step(node, scope))
    found = text_index.narrowed(matching, required(node))
    if found is not None:
        return found
    few = selective(node, scope)
    if few is not None and text_index.are_few(documents.filter(few)):
        return matching
    return None


# --- comparisons that runs share -------------------------------------------------------------------------------------


def number(term: Term, path: str, wrap: Callable[[Any], Any] = lambda value: value) -> Q:
    if term.op == Op.ANY:
        return Q(**{f"{path}__isnull": False})
    if term.op == Op.BETWEEN:
        low, high = (wrap(value) for value in term.values)
        return Q(**{f"{path}__gte": low, f"{path}__lte": high})
    if term.op == Op.IS:
        return Q(**{f"{path}__in": [wrap(value) for value in term.values]})
    return Q(**{f"{path}__{term.op}": wrap(term.values[0])})


def compared(node: Count, number_of: Any) -> Q:
    """The expression's number against that of the count."""
    if node.op == Op.ANY:
        return Q(GreaterThan(number_of, 0))
    if node.op == Op.BETWEEN:
        return Q(GreaterThanOrEqual(number_of, node.values[0])) & Q(LessThanOrEqual(number_of, node.values[1]))
    return reduce(or_, (Q(_COMPARE[node.op](number_of, value)) for value in node.values))


def cache_hit(term: Term, read: str, *written_and_new: str) -> Q:
    """Share of the prompt read from the cache, without dividing: nothing is rounded, and no prompt has no share."""
    prompt = _total((read, *written_and_new))
    has_prompt = Q(GreaterThan(prompt, 0))
    if term.op == Op.ANY:
        return has_prompt
    share = F(read) * 10_000

    def compared(op: Op, value: Any) -> Q:
        return Q(_COMPARE[op](share, prompt * Value(int(value * 100))))

    if term.op == Op.BETWEEN:
        return has_prompt & compared(Op.GTE, term.values[0]) & compared(Op.LTE, term.values[1])
    if term.op == Op.IS:
        return has_prompt & reduce(or_, (compared(Op.IS, value) for value in term.values))
    return has_prompt & compared(term.op, term.values[0])


def _total(paths: Sequence[str]) -> Any:
    total: Any = F(paths[0])
    for path in paths[1:]:
        total = total + F(path)
    return total


def milliseconds(value: Any) -> int:
    return min(int(value), 2**62)


def levels(term: Term) -> list[str]:
    """The levels of risk that are meant."""
    known = [risk.value for risk in Risk]
    wanted = known if term.op == Op.ANY else [str(value) for value in term.values]
    if term.op == Op.BETWEEN:
        return known[known.index(wanted[0]) : known.index(wanted[1]) + 1]
    if term.op in (Op.IS, Op.ANY):
        return wanted
    at = known.index(wanted[0])
    return {Op.GT: known[at + 1 :], Op.GTE: known[at:], Op.LT: known[:at], Op.LTE: known[: at + 1]}[term.op]


def asked(term: Term) -> Q:
    """On actions: people were asked, and this became of it."""
    decided = Q(batch__isnull=False)
    if term.op == Op.ANY:
        return decided
    return decided & Q(status__in=[status for value in term.values for status in APPROVALS[str(value)]])


# --- fields ----------------------------------------------------------------------------------------------------------


def _column(name: str) -> Any:
    """Several that the team has; its values are resolved first."""

    def found(term: Term, scope: Scope) -> Q:
        if term.op == Op.ANY:
            return ~Q(**{name: ""})
        return Q(**{f"{name}__in": names.named(scope, name, term)})

    return found


def _status(term: Term, scope: Scope) -> Q:
    if term.op == Op.ANY:
        return ~Q(status="")
    return Q(status__in=statuses(term))


def statuses(term: Term) -> list[str]:
    """`failed` stands for every way in which a step can fail."""
    return [name for value in term.values for name in (FAILED_STEP if value == "failed" else (str(value),))]


def _kind(term: Term, scope: Scope) -> Q:
    return ~Q(kind="") if term.op == Op.ANY else Q(kind__in=list(term.values))


def _number(path: str, wrap: Callable[[Any], Any] = lambda value: value) -> Any:
    return lambda term, scope: number(term, path, wrap)


def _eval(term: Term, scope: Scope) -> Q:
    called = text_index.holds(Text(tuple(words(term.field.key))), ("about",))
    return called & number(term, "score", float)


def _action(inner: Q) -> Q:
    own = Action.objects.filter(inner, run=OuterRef("run"), tool_call_id=OuterRef("step__tool_call_id"))
    return ~Q(step__tool_call_id="") & Q(Exists(own))


def _tokens(term: Term, scope: Scope) -> Q:
    columns = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    return _sum(term, [f"step__{name}_tokens" for name in columns])


def _sum(term: Term, paths: Sequence[str]) -> Q:
    total = _total(paths)
    if term.op == Op.ANY:
        return Q(GreaterThan(total, -1))
    if term.op == Op.BETWEEN:
        return Q(GreaterThanOrEqual(total, term.values[0])) & Q(LessThanOrEqual(total, term.values[1]))
    return reduce(or_, (Q(_COMPARE[term.op](total, value)) for value in term.values))


def any_of(term: Term, path: str) -> Q:
    """A value that is compared in the database, whatever the case of its ASCII letters."""
    if term.op == Op.ANY:
        return ~Q(**{path: ""})
    if term.op == Op.EXACT:
        return Q(**{f"{path}__in": list(term.values)})
    return reduce(or_, (Q(**{f"{path}__iregex": names.pattern(str(value))}) for value in term.values))


def noted(term: Term, scope: Scope) -> Q:
    """On notes of people."""
    if term.field.name == "note":
        return text_index.of_term(term, ("words",))
    if term.field.name == "human_score":
        return number(term, "score", float)
    return Q() if term.op == Op.ANY else Q(author__in=names.authors(scope.team_id, term))


def _noted(term: Term, scope: Scope) -> Q:
    return Q(step__in=Note.objects.filter(noted(term, scope), team=scope.team_id, step__isnull=False).values("step"))


def _has(term: Term, scope: Scope) -> Q:
    wanted = [str(value) for value in term.values] or list(_HAS)
    conditions: list[Q] = [_HAS[name]() for name in wanted]
    return reduce(or_, conditions)


_HAS: dict[str, Callable[[], Q]] = {
    "error": lambda: ~Q(error=""),
    "reasoning": lambda: ~Q(reasoning=""),
    "output": lambda: ~Q(output=""),
    "input": lambda: ~Q(input=""),
    "score": lambda: Q(score__isnull=False),
    "approval": lambda: _action(Q(batch__isnull=False)),
    "unpriced": lambda: Q(step__cost_usd__isnull=True),
    "more_text": lambda: Q(cut=True),
    "note": lambda: Q(Exists(Note.objects.filter(step=OuterRef("step")))),
}


def _text(term: Term, scope: Scope) -> Q:
    return text_index.of_term(term, (term.field.name,))


_PROMPT = tuple(f"step__{name}_tokens" for name in ("cache_read", "input", "cache_write_5m", "cache_write_1h"))
_TERMS: dict[str, Any] = {
    "tool": _column("tool"),
    "model": _column("model"),
    "kind": _kind,
    "status": _status,
    **dict.fromkeys(("reasoning", "output", "input", "error"), _text),
    "cost": _number("step__cost_usd"),
    "duration": _number("step__duration_ms", milliseconds),
    "tokens": _tokens,
    "input_tokens": _number("step__input_tokens"),
    "output_tokens": _number("step__output_tokens"),
    "cache_read": _number("step__cache_read_tokens"),
    "cache_write": lambda term, scope: _sum(term, _PROMPT[2:]),
    "cache_hit": lambda term, scope: cache_hit(term, *_PROMPT),
    "score": _number("score", float),
    "eval": _eval,
    "confidence": _number("step__confidence", float),
    "attempt": _number("step__attempt"),
    "number": _number("seq"),
    "risk": lambda term, scope: _action(Q(risk__in=levels(term))),
    "approval": lambda term, scope: _action(asked(term)),
    "approver": lambda term, scope: _action(
        Q(decided_by__isnull=False) if term.op == Op.ANY else Q(decided_by__in=names.people(scope.team_id, term))
    ),
    **dict.fromkeys(("note", "human_score", "noted_by"), _noted),
    "price": lambda term, scope: any_of(term, "step__price_id"),
    "has": _has,
}
