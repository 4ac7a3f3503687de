"""The third back end: whether a query holds for one run that is in memory. For live results and alerts.

A property test holds it to what both databases find; what a field means is said there and here, and nowhere else.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import QuerySet

from runs.asked import Note
from runs.engine.types import ENDED, ActionStatus
from runs.models import Action, Run, SearchDocument
from runs.words import words
from traces import names, text_index
from traces.by_steps import counted
from traces.fields import Type
from traces.matching import meta_name, metadata_texts
from traces.step_matching import levels, statuses
from traces.text_index import needle
from traces.tree import And, Count, Node, Not, Op, Term, Text, Word
from traces.tree import Sequence as Steps
from traces.vocabulary import APPROVALS, HAS, IS, REFUSED, STEP_HAS, TIMES

MOST_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One run with everything a query may ask about. `documents` are in order, the run's own first."""

    run: Run
    documents: tuple[SearchDocument, ...]
    actions: tuple[Action, ...]
    batches: frozenset[uuid.UUID]
    children: int
    notes: tuple[Note, ...]
    numbers: tuple[tuple[str, float], ...]
    now: dt.datetime

    def document(self, seq: int) -> SearchDocument | None:
        return next((document for document in self.documents if document.seq == seq), None)

    @property
    def steps(self) -> list[SearchDocument]:
        return [document for document in self.documents if document.seq]


def gather(runs: QuerySet[Run], now: dt.datetime) -> list[Facts]:
    """Of at most MOST_AT_ONCE runs, in a constant number of queries."""
    found = list(
        runs.select_related("team", "agent", "agent_version", "owner", "parent", "forked_from").prefetch_related(
            "documents__step", "actions__decided_by", "batches", "children", "notes__author", "meta_numbers"
        )[:MOST_AT_ONCE]
    )
    return [
        Facts(
            run=run,
            documents=tuple(sorted(run.documents.all(), key=lambda document: document.seq)),
            actions=tuple(run.actions.all()),
            batches=frozenset(batch.id for batch in run.batches.all()),
            children=len(run.children.all()),
            notes=tuple(run.notes.all()),
            numbers=tuple((number.name, number.value) for number in run.meta_numbers.all()),
            now=now,
        )
        for run in found
    ]


def holds(node: Node | None, facts: Facts) -> bool:
    if node is None:
        return True
    if isinstance(node, Word):
        return _mentions(node, facts)
    if isinstance(node, Term):
        if node.field.of_step:
            return any(_in_step(node, document, facts) for document in facts.steps)
        return bool(_RUN[node.field.name](node, facts))
    if isinstance(node, Steps):
        return any(_begins(node, facts))
    if isinstance(node, Count):
        return counted(node, sum(_begins(node.sequence, facts)))
    if isinstance(node, Not):
        return not holds(node.node, facts)
    each = (holds(child, facts) for child in node.nodes)
    return all(each) if isinstance(node, And) else any(each)


# --- text ------------------------------------------------------------------------------------------------------------


def _has_text(document: SearchDocument | Note, text: Text, columns: Sequence[str] = text_index.COLUMNS) -> bool:
    return any(needle(text) in getattr(document, column) for column in columns)


def _text(term: Term, document: SearchDocument | Note, columns: Sequence[str]) -> bool:
    if term.op == Op.ANY:
        return any(getattr(document, column) for column in columns)
    if term.op == Op.EXACT:
        return any(getattr(document, column) == needle(text) for column in columns for text in term.texts)
    return any(_has_text(document, text, columns) for text in term.texts)


def _mentions(node: Word, facts: Facts) -> bool:
    own = {f"r-{facts.run.number}", str(facts.run.id)}
    return node.text.lower() in own or any(_has_text(document, node.wanted) for document in facts.documents)


# --- steps -----------------------------------------------------------------------------------------------------------


def _begins(node: Steps, facts: Facts) -> list[bool]:
    """For each step whether the sequence begins there."""
    steps = facts.steps
    follows = [True] * len(steps)
    for place in reversed(range(len(node.steps))):
        begins = [
            follows[index] and _step_holds(node.steps[place], document, facts) for index, document in enumerate(steps)
        ]
        if place == 0:
            return begins
        if node.next_ones[place - 1]:
            starts = {document.seq for index, document in enumerate(steps) if begins[index]}
            follows = [document.seq + 1 in starts for document in steps]
        else:
            last = max((document.seq for index, document in enumerate(steps) if begins[index]), default=-1)
            follows = [document.seq < last for document in steps]
    return []


def _step_holds(node: Node, document: SearchDocument, facts: Facts) -> bool:
    if isinstance(node, Word):
        return _has_text(document, node.wanted)
    if isinstance(node, Term):
        return _in_step(node, document, facts)
    if isinstance(node, Not):
        return not _step_holds(node.node, document, facts)
    each = (_step_holds(child, document, facts) for child in node.nodes)  # type: ignore[union-attr]
    return all(each) if isinstance(node, And) else any(each)


def _in_step(term: Term, document: SearchDocument, facts: Facts) -> bool:
    if term.field.of_note:
        return _noted(term, _notes_on(document, facts))
    if term.field.type == Type.TEXT:
        return _text(term, document, (term.field.name,))
    return bool(_STEP[term.field.name](term, document, facts))


def _actions_of(document: SearchDocument, facts: Facts) -> list[Action]:
    call = document.step.tool_call_id if document.step else ""
    return [action for action in facts.actions if call and action.tool_call_id == call]


def _notes_on(document: SearchDocument, facts: Facts) -> list[Note]:
    return [note for note in facts.notes if note.step_id is not None and note.step_id == document.step_id]


def _noted(term: Term, notes: Iterable[Note]) -> bool:
    if term.field.name == "note":
        return any(_text(term, note, ("words",)) for note in notes)
    if term.field.name == "human_score":
        return any(_compare(term, note.score, float) for note in notes)
    return any(term.op == Op.ANY or names.matches_person(term, note.author) for note in notes)


def _step_number(name: str, wrap: Callable[[Any], Any] = lambda value: value) -> Any:
    return lambda term, document, facts: _compare(term, getattr(document.step, name), wrap)


def _prompt(step: Any) -> int:
    return int(step.input_tokens + step.cache_read_tokens + step.cache_write_tokens)


_STEP: dict[str, Any] = {
    "tool": lambda term, document, facts: names.matches(term, document.tool),
    "model": lambda term, document, facts: names.matches(term, document.model),
    "kind": lambda term, document, facts: document.kind in term.values if term.values else document.kind != "",
    "status": lambda term, document, facts: document.status in statuses(term) if term.values else document.status != "",
    **dict.fromkeys(TIMES, lambda term, document, facts: _began(term, document.started_at)),
    "cost": _step_number("cost_usd"),
    "duration": _step_number("duration_ms"),
    "tokens": lambda term, document, facts: _compare(term, _prompt(document.step) + document.step.output_tokens),
    "input_tokens": _step_number("input_tokens"),
    "output_tokens": _step_number("output_tokens"),
    "cache_read": _step_number("cache_read_tokens"),
    "cache_write": _step_number("cache_write_tokens"),
    "cache_hit": lambda term, document, facts: _share(term, document.step.cache_read_tokens, _prompt(document.step)),
    "cache_lost": _step_number("cache_expired_tokens"),
    "score": lambda term, document, facts: _compare(term, document.score, float),
    "eval": lambda term, document, facts: (
        _has_text(document, Text(tuple(words(term.field.key))), ("about",)) and _compare(term, document.score, float)
    ),
    "confidence": _step_number("confidence", float),
    "attempt": _step_number("attempt"),
    "number": lambda term, document, facts: _compare(term, document.seq),
    "risk": lambda term, document, facts: _risk(term, _actions_of(document, facts)),
    "approval": lambda term, document, facts: _approval(term, _actions_of(document, facts)),
    "approver": lambda term, document, facts: _approver(term, _actions_of(document, facts)),
    "price": lambda term, document, facts: names.matches(term, document.step.price_id),
    "is": lambda term, document, facts: _is_refused(document, facts),
    "has": lambda term, document, facts: any(
        _step_has(str(value), document, facts) for value in term.values or tuple(STEP_HAS)
    ),
}


def _is_refused(document: SearchDocument, facts: Facts) -> bool:
    proposed = {
        action.status in REFUSED
        for action in facts.actions
        if document.step
        and document.step.key == f"model:{action.intent.split(':')[0]}"
        and action.status != ActionStatus.SUPERSEDED
    }
    return proposed == {True}


def _step_has(name: str, document: SearchDocument, facts: Facts) -> bool:
    if name == "score":
        return document.score is not None
    if name == "more_text":
        return document.cut
    if name == "note":
        return bool(_notes_on(document, facts))
    if name == "approval":
        return any(action.batch_id for action in _actions_of(document, facts))
    if name == "unpriced":
        return document.step is not None and document.step.cost_usd is None
    return bool(getattr(document, name))


# --- comparisons -----------------------------------------------------------------------------------------------------


def _compare(term: Term, value: Any, wrap: Callable[[Any], Any] = lambda value: value) -> bool:
    if value is None or term.op == Op.ANY:
        return value is not None
    values: list[Any] = [wrap(each) for each in term.values]
    if term.op == Op.BETWEEN:
        return bool(values[0] <= value <= values[1])
    if term.op == Op.IS:
        return value in values
    first = values[0]
    return bool(
        {
            Op.GT: lambda: value > first,
            Op.GTE: lambda: value >= first,
            Op.LT: lambda: value < first,
            Op.LTE: lambda: value <= first,
        }[term.op]()
    )


def _share(term: Term, part: int, whole: int) -> bool:
    """In hundredths of a percent, without dividing."""
    return whole > 0 and _compare(term, part * 10_000, lambda value: int(value * 100) * whole)


def _risk(term: Term, actions: Iterable[Action]) -> bool:
    return any(action.risk in levels(term) for action in actions)


def _approval(term: Term, actions: Iterable[Action]) -> bool:
    wanted = [status for value in term.values for status in APPROVALS[str(value)]]
    return any(action.batch_id and (term.op == Op.ANY or action.status in wanted) for action in actions)


def _approver(term: Term, actions: Iterable[Action]) -> bool:
    people = [action.decided_by for action in actions if action.decided_by is not None]
    return any(term.op == Op.ANY or names.matches_person(term, person) for person in people)


# --- runs ------------------------------------------------------------------------------------------------------------


def _choice(name: str) -> Any:
    return lambda term, facts: (
        getattr(facts.run, name) is not None if term.op == Op.ANY else getattr(facts.run, name) in term.values
    )


def _number(name: str) -> Any:
    return lambda term, facts: _compare(term, getattr(facts.run, name))


def _agent(term: Term, facts: Facts) -> bool:
    version = facts.run.agent_version
    texts = names.agent_names(term, facts.run.agent.slug, str(version.definition.get("name") or ""))
    if term.field.name == "prompt":
        texts += [f"{text}@{mark}{version.number}" for text in texts for mark in ("", "v")]
    return term.op == Op.ANY or names.any_matches(term, texts)


def _own_text(term: Term, facts: Facts) -> bool:
    if term.op == Op.ANY:
        return facts.run.task != ""
    own = facts.document(0)
    return own is not None and _text(term, own, ("input",))


def _plan(term: Term, facts: Facts) -> bool:
    return any(
        document.kind == "plan" and _text(term, document, ("about", "output", "reasoning")) for document in facts.steps
    )


def _meta(term: Term, facts: Facts) -> bool:
    if term.field.type == Type.NUMBER:
        return any(_compare(term, value, float) for name, value in facts.numbers if name == meta_name(term))
    own = facts.document(0)
    return own is not None and any(_has_text(own, text, ("about",)) for text in metadata_texts(term))


def _cost(term: Term, facts: Facts) -> bool:
    priced = term.op in (Op.GT, Op.GTE) or not facts.run.unpriced_steps
    return priced and _compare(term, Decimal(facts.run.cost_usd))


def _took(term: Term, facts: Facts) -> bool:
    run = facts.run
    end = run.ended_at or facts.now
    start = run.started_at or run.ended_at or facts.now
    return _compare(term, end - start, lambda value: dt.timedelta(milliseconds=min(int(value), 10**14)))


def _tokens(term: Term, facts: Facts) -> bool:
    run = facts.run
    return _compare(term, run.input_tokens + run.output_tokens + run.cache_read_tokens + run.cache_write_tokens)


def _began(term: Term, moment: dt.datetime) -> bool:
    if term.op == Op.BETWEEN:
        return bool(term.values[0] <= moment < term.values[1])  # type: ignore[operator]
    return _compare(term, moment)


def _started(term: Term, facts: Facts) -> bool:
    if term.op == Op.ANY:
        return facts.run.started_at is not None
    return _began(term, facts.run.created_at)


def _run(path: str) -> Any:
    def found(term: Term, facts: Facts) -> bool:
        run = getattr(facts.run, path) if path else facts.run
        if run is None or term.op == Op.ANY:
            return run is not None
        return str(run.number) in term.values or str(run.id) in term.values

    return found


def _like(term: Term, facts: Facts) -> bool:
    """Asks the database for the run that is named, once a query and run."""
    if term.op == Op.ANY:
        return True
    shown = Run.objects.filter(team=facts.run.team_id, agent=facts.run.agent_id, task_type=facts.run.task_type)
    numbers = [int(str(value)) for value in term.values if str(value).isdigit()]
    ids = [str(value) for value in term.values if not str(value).isdigit()]
    return shown.filter(number__in=numbers).exists() or shown.filter(id__in=ids).exists()


_HAS: dict[str, Callable[[Facts], Any]] = {
    "error": lambda facts: any(document.status == "error" for document in facts.steps),
    "timeout": lambda facts: any(document.status == "timeout" for document in facts.steps),
    "guardrail": lambda facts: any(document.kind == "guardrail" for document in facts.steps),
    "more_text": lambda facts: any(document.cut for document in facts.documents),
    "rejection": lambda facts: any(action.status == "rejected" for action in facts.actions),
    "approval": lambda facts: any(action.batch_id for action in facts.actions),
    "wait": lambda facts: facts.run.wait_ms > 0 or facts.run.status == "waiting",
    "unpriced": lambda facts: facts.run.unpriced_steps > 0,
    "score": lambda facts: any(document.score is not None for document in facts.steps),
    "note": lambda facts: bool(facts.notes),
    "plan": lambda facts: facts.run.plan is not None,
    "subagent": lambda facts: facts.children > 0,
    "fork": lambda facts: facts.run.forked_from_id is not None,
    "parent": lambda facts: facts.run.parent_id is not None,
    "result": lambda facts: facts.run.result != "",
    "simulated": lambda facts: facts.run.simulated,
}


def _over_budget(facts: Facts) -> bool:
    run = facts.run
    return run.stop_reason == "max_cost" or (run.max_cost_usd is not None and run.cost_usd > run.max_cost_usd)


_IS: dict[str, Callable[[Facts], Any]] = {
    "live": lambda facts: facts.run.status not in ENDED,
    "ended": lambda facts: facts.run.status in ENDED,
    "waiting": lambda facts: facts.run.status == "waiting",
    "unpriced": _HAS["unpriced"],
    "over_budget": _over_budget,
    "forked": _HAS["fork"],
    "delegated": _HAS["parent"],
    "looping": lambda facts: facts.run.stop_reason == "loop",
    "flagged": _HAS["guardrail"],
    "simulated": _HAS["simulated"],
}


_RUN: dict[str, Any] = {
    "agent": _agent,
    "prompt": _agent,
    "status": _choice("status"),
    "stop": _choice("stop_reason"),
    "mode": _choice("mode"),
    "user": lambda term, facts: term.op == Op.ANY or names.matches_person(term, facts.run.owner),
    "version": lambda term, facts: _compare(term, facts.run.agent_version.number),
    "type": lambda term, facts: names.matches(term, facts.run.task_type),
    "task": _own_text,
    "plan": _plan,
    "meta": _meta,
    "tag": _meta,
    "cost": _cost,
    "budget": _number("max_cost_usd"),
    "duration": _took,
    "wait": _number("wait_ms"),
    "tokens": _tokens,
    "input_tokens": _number("input_tokens"),
    "output_tokens": _number("output_tokens"),
    "cache_read": _number("cache_read_tokens"),
    "cache_write": _number("cache_write_tokens"),
    "cache_hit": lambda term, facts: _share(
        term,
        facts.run.cache_read_tokens,
        facts.run.cache_read_tokens + facts.run.input_tokens + facts.run.cache_write_tokens,
    ),
    "steps": _number("last_seq"),
    "risk": lambda term, facts: _risk(term, facts.actions),
    "approval": lambda term, facts: _approval(term, facts.actions),
    "approver": lambda term, facts: _approver(term, facts.actions),
    "action": lambda term, facts: any(names.matches(term, action.tool) for action in facts.actions),
    **dict.fromkeys(("note", "human_score", "noted_by"), lambda term, facts: _noted(term, facts.notes)),
    **dict.fromkeys(TIMES, _started),
    "run": _run(""),
    "parent": _run("parent"),
    "fork": _run("forked_from"),
    "like": _like,
    "team": lambda term, facts: names.any_matches(term, (facts.run.team.slug, facts.run.team.name)),
    "batch": lambda term, facts: (
        bool(facts.batches) if term.op == Op.ANY else any(str(batch) in term.values for batch in facts.batches)
    ),
    "has": lambda term, facts: any(_HAS[str(value)](facts) for value in term.values or tuple(HAS)),
    "is": lambda term, facts: any(_IS[str(value)](facts) for value in term.values or tuple(IS)),
}
