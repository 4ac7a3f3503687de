"""The conditions within `step:{…}` on one document or step, in SQL; and what an index can find of them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Concat, Left, StrIndex
from django.db.models.lookups import Exact, GreaterThan, GreaterThanOrEqual, LessThan, LessThanOrEqual

from runs.asked import Note
from runs.engine.types import ActionStatus, Risk
from runs.models import Action, SearchDocument
from runs.words import words
from traces import names, text_index
from traces.fields import Type
from traces.scope import Scope
from traces.text_index import Requirement
from traces.tree import And, Count, Node, Not, Op, Or, Term, Text, Word
from traces.vocabulary import APPROVALS, FAILED_STEP, REFUSED, TIMES

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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a condition is put to: the way from there to a step's document, to the step, and to its key. Columns that
    both have (tool, model, kind, status, score, seq, started_at) are named alike."""

    document: str
    step: str
    key: str

    def texts(self, columns: Iterable[str]) -> tuple[str, ...]:
        return tuple(f"{self.document}{column}" for column in columns)


DOCUMENTS = Place(document="", step="step__", key="step")
STEPS = Place(document="document__", step="", key="pk")


def condition(node: Node, scope: Scope, at: Place = DOCUMENTS) -> Q:
    """On documents of steps, or on steps."""
    if isinstance(node, Word):
        return text_index.holds(node.wanted, at.texts(text_index.COLUMNS))
    if isinstance(node, Term):
        found: Q = _TERMS[node.field.name](node, scope, at)
        return found
    if isinstance(node, Not):
        return ~condition(node.node, scope, at)
    join = and_ if isinstance(node, And) else or_
    return reduce(join, (condition(child, scope, at) for child in node.nodes))  # type: ignore[union-attr]


def of_step(node: Node, scope: Scope) -> Q:
    """The same, and the document is a step's: which is not said where only a step's can match, so that an index that
    has no number in it is enough."""
    holds = condition(node, scope)
    return holds if is_indexed(node) else Q(seq__gt=0) & holds


def is_indexed(node: Node) -> bool:
    """An index by a column says all of it."""
    return isinstance(node, Term) and node.field.name in INDEXED and node.op != Op.ANY


def is_narrow(node: Node) -> bool:
    """The columns of steps alone say all of it."""
    if isinstance(node, Term):
        has = [str(value) for value in node.values] or ["reasoning"]
        return node.field.name in _NARROW or (node.field.name == "has" and set(has) <= {"score", "unpriced"})
    if isinstance(node, Not):
        return is_narrow(node.node)
    return isinstance(node, And | Or) and all(is_narrow(child) for child in node.nodes)


def began(node: Node) -> Iterator[Term]:
    """The terms that say when every match began."""
    if isinstance(node, Term) and node.field.name in TIMES and node.op != Op.ANY:
        yield node
    elif isinstance(node, And):
        for child in node.nodes:
            yield from began(child)


def span(term: Term) -> tuple[dt.datetime | None, dt.datetime | None]:
    """(from, to before) of a term about time; None where it is open."""
    times = [value for value in term.values if isinstance(value, dt.datetime)]
    if term.op == Op.BETWEEN:
        return times[0], times[1]
    return (times[0], None) if term.op == Op.GTE else (None, times[0])


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


def moment(term: Term, path: str) -> Q:
    """On a column that is never empty."""
    if term.op == Op.ANY:
        return Q(pk__isnull=False)
    if term.op == Op.BETWEEN:
        return Q(**{f"{path}__gte": term.values[0], f"{path}__lt": term.values[1]})
    return Q(**{f"{path}__{term.op}": term.values[0]})


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

    def found(term: Term, scope: Scope, at: Place) -> Q:
        if term.op == Op.ANY:
            return ~Q(**{name: ""})
        return Q(**{f"{name}__in": names.named(scope, name, term)})

    return found


def _status(term: Term, scope: Scope, at: Place) -> Q:
    if term.op == Op.ANY:
        return ~Q(status="")
    return Q(status__in=statuses(term))


def statuses(term: Term) -> list[str]:
    """`failed` stands for every way in which a step can fail."""
    return [name for value in term.values for name in (FAILED_STEP if value == "failed" else (str(value),))]


def _kind(term: Term, scope: Scope, at: Place) -> Q:
    return ~Q(kind="") if term.op == Op.ANY else Q(kind__in=list(term.values))


def _number(column: str, wrap: Callable[[Any], Any] = lambda value: value) -> Any:
    """Of a column that steps alone have."""
    return lambda term, scope, at: number(term, f"{at.step}{column}", wrap)


def _shared(column: str, wrap: Callable[[Any], Any] = lambda value: value) -> Any:
    return lambda term, scope, at: number(term, column, wrap)


def _eval(term: Term, scope: Scope, at: Place) -> Q:
    called = text_index.holds(Text(tuple(words(term.field.key))), at.texts(["about"]))
    return called & number(term, "score", float)


def _action(inner: Q, at: Place) -> Q:
    call = f"{at.step}tool_call_id"
    own = Action.objects.filter(inner, run=OuterRef("run"), tool_call_id=OuterRef(call))
    return ~Q(**{call: ""}) & Q(Exists(own))


def refused_turn(team_id: uuid.UUID, at: Place) -> Q:
    """A model's turn whose every proposal was turned down or came too late. What was edited is not counted: the edit
    is. An action's intent begins with the number of its turn."""
    turn = Left("intent", StrIndex(Concat("intent", Value(":")), Value(":")) - 1)
    proposed = Action.objects.exclude(status=ActionStatus.SUPERSEDED).filter(
        Exact(Concat(Value("model:"), turn), OuterRef(f"{at.step}key")), run=OuterRef("run")
    )
    refused = Action.objects.filter(run__team=team_id, status__in=REFUSED)
    return Q(run__in=refused.values("run")) & Q(Exists(proposed)) & ~Q(Exists(proposed.exclude(status__in=REFUSED)))


def _is(term: Term, scope: Scope, at: Place) -> Q:
    """There is only one thing that a step can be."""
    return refused_turn(scope.team_id, at)


def _tokens(term: Term, scope: Scope, at: Place) -> Q:
    return _sum(term, _token_columns(at, "output", *_PROMPT))


def _token_columns(at: Place, *kinds: str) -> list[str]:
    return [f"{at.step}{kind}_tokens" for kind in kinds]


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


def _noted(term: Term, scope: Scope, at: Place) -> Q:
    notes = Note.objects.filter(noted(term, scope), team=scope.team_id, step__isnull=False)
    return Q(**{f"{at.key}__in": notes.values("step")})


def _has(term: Term, scope: Scope, at: Place) -> Q:
    wanted = [str(value) for value in term.values] or list(_HAS)
    conditions: list[Q] = [_HAS[name](at) for name in wanted]
    return reduce(or_, conditions)


def _holds_text(column: str) -> Callable[[Place], Q]:
    return lambda at: ~Q(**{f"{at.document}{column}": ""})


_HAS: dict[str, Callable[[Place], Q]] = {
    **{column: _holds_text(column) for column in ("error", "reasoning", "output", "input")},
    "score": lambda at: Q(score__isnull=False),
    "approval": lambda at: _action(Q(batch__isnull=False), at),
    "unpriced": lambda at: Q(**{f"{at.step}cost_usd__isnull": True}),
    "more_text": lambda at: Q(**{f"{at.document}cut": True}),
    "note": lambda at: Q(Exists(Note.objects.filter(step=OuterRef(at.key)))),
}


def _text(term: Term, scope: Scope, at: Place) -> Q:
    return text_index.of_term(term, at.texts([term.field.name]))


_PROMPT = ("cache_read", "input", "cache_write_5m", "cache_write_1h")
_TERMS: dict[str, Any] = {
    "tool": _column("tool"),
    "model": _column("model"),
    "kind": _kind,
    "status": _status,
    **dict.fromkeys(("reasoning", "output", "input", "error"), _text),
    **dict.fromkeys(TIMES, lambda term, scope, at: moment(term, "started_at")),
    "cost": _number("cost_usd"),
    "duration": _number("duration_ms", milliseconds),
    "tokens": _tokens,
    "input_tokens": _number("input_tokens"),
    "output_tokens": _number("output_tokens"),
    "cache_read": _number("cache_read_tokens"),
    "cache_write": lambda term, scope, at: _sum(term, _token_columns(at, *_PROMPT[2:])),
    "cache_hit": lambda term, scope, at: cache_hit(term, *_token_columns(at, *_PROMPT)),
    "cache_lost": _number("cache_expired_tokens"),
    "score": _shared("score", float),
    "eval": _eval,
    "confidence": _number("confidence", float),
    "attempt": _number("attempt"),
    "number": _shared("seq"),
    "risk": lambda term, scope, at: _action(Q(risk__in=levels(term)), at),
    "approval": lambda term, scope, at: _action(asked(term), at),
    "approver": lambda term, scope, at: _action(
        Q(decided_by__isnull=False) if term.op == Op.ANY else Q(decided_by__in=names.people(scope.team_id, term)), at
    ),
    **dict.fromkeys(("note", "human_score", "noted_by"), _noted),
    "price": lambda term, scope, at: any_of(term, f"{at.step}price_id"),
    "is": _is,
    "has": _has,
}
_NARROW = {*_TERMS} - {"reasoning", "output", "input", "error", "eval", "risk", "approval", "approver", "has"}
_NARROW -= {"note", "human_score", "noted_by"}
