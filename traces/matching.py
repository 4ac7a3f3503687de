"""The tree of a query as a condition on `Run`, the same for both databases; `memory.py` says it in plain Python."""

from __future__ import annotations

import datetime as dt
import re
from functools import reduce
from operator import and_, or_
from typing import Any

from django.db.models import (
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    QuerySet,
    Value,
)
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Coalesce

from accounts.models import Team
from runs.asked import MetaNumber, Note
from runs.documents import END, EQUALS, MOST_NAME
from runs.engine.types import ENDED, RunStatus
from runs.models import Action, Batch, Run
from runs.words import words
from traces import by_steps, names, step_matching, text_index
from traces.fields import Type
from traces.scope import Scope
from traces.step_matching import number
from traces.tree import And, Count, Node, Not, Op, Term, Text, Word
from traces.tree import Sequence as Steps
from traces.vocabulary import TIMES

OPEN = [status.value for status in RunStatus if status not in ENDED]
EVERY, NONE = by_steps.EVERY, Q(pk__in=())


def matching(runs: QuerySet[Run], node: Node | None, scope: Scope) -> QuerySet[Run]:
    """The rows of `runs`, which are those of the scope's team, for which the query holds."""
    runs = runs.alias(took=duration(scope.now), all_tokens=tokens())
    return runs.filter(condition(node, scope)) if node else runs


def duration(now: dt.datetime) -> ExpressionWrapper[CombinedExpression]:
    """From its start to its end, or until now; zero for a run that has not started."""
    end = Coalesce("ended_at", Value(now, output_field=DateTimeField()))
    start = Coalesce("started_at", "ended_at", Value(now, output_field=DateTimeField()))
    return ExpressionWrapper(end - start, output_field=DurationField())


def tokens() -> Any:
    return F("input_tokens") + F("output_tokens") + F("cache_read_tokens") + F("cache_write_tokens")


def condition(node: Node, scope: Scope) -> Q:
    if isinstance(node, Word):
        return _mentions(node, scope)
    if isinstance(node, Term):
        if node.field.of_step:
            return by_steps.a_step(node, scope)
        found: Q = _TERMS[node.field.name](node, scope)
        return found
    if isinstance(node, Steps):
        return by_steps.sequence(node, scope)
    if isinstance(node, Count):
        return by_steps.counted_steps(node, scope)
    if isinstance(node, Not):
        return ~condition(node.node, scope)
    join = and_ if isinstance(node, And) else or_
    return reduce(join, (condition(child, scope) for child in node.nodes))


def _mentions(node: Word, scope: Scope) -> Q:
    text = node.wanted
    return by_steps.some_document(scope, text_index.holds(text), [(text,)]) | _called(node.text)


def _called(text: str) -> Q:
    """The run's own number or id, written as people see it."""
    match = re.fullmatch(r"[rR]-([0-9]{1,9})", text, re.ASCII)
    if match:
        return Q(number=int(match[1]))
    if re.fullmatch(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", text, re.ASCII):
        return Q(id=text)
    return NONE


# --- fields ----------------------------------------------------------------------------------------------------------


def _choice(path: str) -> Any:
    return lambda term, scope: (
        Q(**{f"{path}__isnull": False}) if term.op == Op.ANY else Q(**{f"{path}__in": list(term.values)})
    )


def _number(path: str, wrap: Any = lambda value: value) -> Any:
    return lambda term, scope: number(term, path, wrap)


def _agent(term: Term, scope: Scope) -> Q:
    if term.op == Op.ANY:
        return EVERY
    agents, versions = names.versions(scope.team_id, term)
    if not versions:
        return Q(agent__in=agents)
    return Q(agent__in=agents) | Q(agent_version__in=versions) if agents else Q(agent_version__in=versions)


def _user(term: Term, scope: Scope) -> Q:
    return EVERY if term.op == Op.ANY else Q(owner__in=names.people(scope.team_id, term))


def _type(term: Term, scope: Scope) -> Q:
    if term.op == Op.ANY:
        return ~Q(task_type="")
    return Q(task_type__in=names.named(scope, "type", term))


def _task(term: Term, scope: Scope) -> Q:
    if term.op == Op.ANY:
        return ~Q(task="")
    return by_steps.some_document(scope, Q(seq=0) & text_index.of_term(term, ("input",)), [term.texts])


def _plan(term: Term, scope: Scope) -> Q:
    holds = Q(kind="plan") & text_index.of_term(term, ("about", "output", "reasoning"))
    return by_steps.some_document(scope, holds, [] if term.op == Op.ANY else [term.texts], Q(kind="plan"))


def _meta(term: Term, scope: Scope) -> Q:
    if term.field.type == Type.NUMBER:
        return _meta_number(term, scope)
    texts = metadata_texts(term)
    return by_steps.some_document(
        scope, Q(seq=0) & reduce(or_, (text_index.holds(text, ("about",)) for text in texts)), [tuple(texts)]
    )


def _meta_number(term: Term, scope: Scope) -> Q:
    holds = Q(name=meta_name(term)) & number(term, "value", float)
    found = MetaNumber.objects.filter(holds, team=scope.team_id).order_by()
    if text_index.are_few(found):
        return by_steps.these(found.values_list("run_id", flat=True))
    scope.walks = True
    return Q(Exists(MetaNumber.objects.filter(holds, run=OuterRef("pk"))))


def meta_name(term: Term) -> str:
    return " ".join(words(term.field.key))[:MOST_NAME]


def metadata_texts(term: Term) -> list[Text]:
    """A piece of metadata as its words stand in the run's document."""
    keys = ["tag", "tags"] if term.field.name == "tag" else [term.field.key]
    found: list[Text] = []
    for key in keys:
        name = (END, *words(key), EQUALS)
        if term.op == Op.ANY:
            found.append(Text(name))
        for value in map(str, term.values):
            prefix = value.endswith("*") and bool(words(value))
            found.append(Text((*name, *words(value), *(() if prefix else (END,))), prefix=prefix))
    return found


def _cost(term: Term, scope: Scope) -> Q:
    """With unpriced steps a run's cost is known only to be at least its sum: never below or equal to anything."""
    found = number(term, "cost_usd")
    return found if term.op in (Op.GT, Op.GTE) else found & Q(unpriced_steps=0)


def _took(term: Term, scope: Scope) -> Q:
    return number(term, "took", lambda value: dt.timedelta(milliseconds=min(int(value), 10**14)))


def _started(term: Term, scope: Scope) -> Q:
    if term.op == Op.ANY:
        return Q(started_at__isnull=False)
    return step_matching.moment(term, "created_at")


def _an_action(inner: Q) -> Q:
    return Q(Exists(Action.objects.filter(inner, run=OuterRef("pk"))))


def _some_note(holds: Q, scope: Scope) -> Q:
    """The run, or a step of it, has such a note of a person's."""
    found = Note.objects.filter(holds, team=scope.team_id).order_by()
    if text_index.are_few(found):
        return by_steps.these(found.values_list("run_id", flat=True))
    scope.walks = True
    return Q(Exists(Note.objects.filter(holds, run=OuterRef("pk"))))


def _noted(term: Term, scope: Scope) -> Q:
    return _some_note(step_matching.noted(term, scope), scope)


def _run(path: str) -> Any:
    """The run itself, or one it points to: by number or id."""
    prefix, own_id = (f"{path}__", f"{path}_id") if path else ("", "id")

    def found(term: Term, scope: Scope) -> Q:
        if term.op == Op.ANY:
            return Q(**{f"{own_id}__isnull": False})
        numbers = [int(str(value)) for value in term.values if str(value).isdigit()]
        ids = [str(value) for value in term.values if not str(value).isdigit()]
        return Q(**{f"{prefix}number__in": numbers}) | Q(**{f"{own_id}__in": ids})

    return found


def _like(term: Term, scope: Scope) -> Q:
    if term.op == Op.ANY:
        return EVERY
    shown = Run.objects.filter(_run("")(term, scope), team=scope.team_id).values_list("agent", "task_type")
    kinds = [Q(agent=agent, task_type=task_type) for agent, task_type in set(shown)]
    return reduce(or_, kinds, NONE)


def _team(term: Term, scope: Scope) -> Q:
    team = Team.objects.get(id=scope.team_id)
    return EVERY if names.any_matches(term, (team.slug, team.name)) else NONE


def _batch(term: Term, scope: Scope) -> Q:
    asked = Batch.objects.filter(run=OuterRef("pk"))
    return Q(Exists(asked if term.op == Op.ANY else asked.filter(id__in=list(term.values))))


def _has(term: Term, scope: Scope) -> Q:
    wanted = [str(value) for value in term.values] or list(_HAS)
    conditions: list[Q] = [_HAS[name](scope) for name in wanted]
    return reduce(or_, conditions)


def _step_with(**columns: str | bool) -> Any:
    holds = Q(**columns)
    return lambda scope: by_steps.some_document(scope, holds, [], holds)


_HAS: dict[str, Any] = {
    "error": _step_with(status="error"),
    "timeout": _step_with(status="timeout"),
    "guardrail": _step_with(kind="guardrail"),
    "more_text": _step_with(cut=True),
    "rejection": lambda scope: _an_action(Q(status="rejected")),
    "approval": lambda scope: _an_action(Q(batch__isnull=False)),
    "wait": lambda scope: Q(wait_ms__gt=0) | Q(status="waiting"),
    "unpriced": lambda scope: Q(unpriced_steps__gt=0),
    "score": lambda scope: by_steps.some_document(scope, Q(seq__gt=0, score__isnull=False), []),
    "note": lambda scope: _some_note(Q(), scope),
    "plan": lambda scope: Q(plan__isnull=False),
    "subagent": lambda scope: Q(Exists(Run.objects.filter(parent=OuterRef("pk")))),
    "fork": lambda scope: Q(forked_from__isnull=False),
    "parent": lambda scope: Q(parent__isnull=False),
    "result": lambda scope: ~Q(result=""),
    "simulated": lambda scope: Q(simulated=True),
}


def _is(term: Term, scope: Scope) -> Q:
    wanted = [str(value) for value in term.values] or list(_IS)
    conditions: list[Q] = [_IS[name](scope) for name in wanted]
    return reduce(or_, conditions)


_IS: dict[str, Any] = {
    "live": lambda scope: Q(status__in=OPEN),
    "ended": lambda scope: ~Q(status__in=OPEN),
    "waiting": lambda scope: Q(status="waiting"),
    "unpriced": _HAS["unpriced"],
    "over_budget": lambda scope: (
        Q(stop_reason="max_cost") | Q(max_cost_usd__isnull=False, cost_usd__gt=F("max_cost_usd"))
    ),
    "forked": _HAS["fork"],
    "delegated": _HAS["parent"],
    "looping": lambda scope: Q(stop_reason="loop"),
    "flagged": _HAS["guardrail"],
    "simulated": _HAS["simulated"],
}

_TERMS: dict[str, Any] = {
    "agent": _agent,
    "prompt": _agent,
    "status": _choice("status"),
    "stop": _choice("stop_reason"),
    "mode": _choice("mode"),
    "user": _user,
    "version": _number("agent_version__number"),
    "type": _type,
    "task": _task,
    "plan": _plan,
    "meta": _meta,
    "tag": _meta,
    "cost": _cost,
    "budget": _number("max_cost_usd"),
    "duration": _took,
    "wait": _number("wait_ms", step_matching.milliseconds),
    "tokens": _number("all_tokens"),
    "input_tokens": _number("input_tokens"),
    "output_tokens": _number("output_tokens"),
    "cache_read": _number("cache_read_tokens"),
    "cache_write": _number("cache_write_tokens"),
    "cache_hit": lambda term, scope: step_matching.cache_hit(
        term, "cache_read_tokens", "input_tokens", "cache_write_tokens"
    ),
    "steps": _number("last_seq"),
    "risk": lambda term, scope: _an_action(Q(risk__in=step_matching.levels(term))),
    "approval": lambda term, scope: _an_action(step_matching.asked(term)),
    "approver": lambda term, scope: _an_action(
        Q(decided_by__isnull=False) if term.op == Op.ANY else Q(decided_by__in=names.people(scope.team_id, term))
    ),
    "action": lambda term, scope: _an_action(step_matching.any_of(term, "tool")),
    **dict.fromkeys(("note", "human_score", "noted_by"), _noted),
    **dict.fromkeys(TIMES, _started),
    "run": _run(""),
    "parent": _run("parent"),
    "fork": _run("forked_from"),
    "like": _like,
    "team": _team,
    "batch": _batch,
    "has": _has,
    "is": _is,
}
