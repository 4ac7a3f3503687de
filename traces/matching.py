"""The tree of a query as a condition on `Run`. The same for both databases but for how JSON text is matched."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from functools import reduce
from operator import and_, or_
from typing import Any

from django.db import connection
from django.db.models import (
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    QuerySet,
    TextField,
    Value,
)
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Cast, Coalesce

from runs.engine.types import Risk
from runs.models import Action, Run, Step
from traces.fields import Type
from traces.tree import And, Node, Not, Op, Term, Word

STEP_TEXTS = ("title", "summary", "tool", "payload__reasoning", "payload__error")
RUN_TEXTS = ("task", "result", "stop_detail")
JSON_TEXTS = ("input", "output")


def matching(runs: QuerySet[Run], node: Node | None, now: dt.datetime) -> QuerySet[Run]:
    """The rows of `runs` for which the query holds."""
    runs = runs.alias(took=duration(now), all_tokens=tokens())
    return runs.filter(condition(node)) if node else runs


def duration(now: dt.datetime) -> ExpressionWrapper[CombinedExpression]:
    """From its start to its end, or until now; zero for a run that has not started."""
    end = Coalesce("ended_at", Value(now, output_field=DateTimeField()))
    start = Coalesce("started_at", "ended_at", Value(now, output_field=DateTimeField()))
    return ExpressionWrapper(end - start, output_field=DurationField())


def tokens() -> Any:
    return F("input_tokens") + F("output_tokens") + F("cache_read_tokens") + F("cache_write_tokens")


def condition(node: Node) -> Q:
    if isinstance(node, Word):
        return mentions(node.text)
    if isinstance(node, Term):
        found: Q = _TERMS[node.field.name](node)
        return found
    if isinstance(node, Not):
        return ~condition(node.node)
    join = and_ if isinstance(node, And) else or_
    return reduce(join, (condition(child) for child in node.nodes))


# --- text ------------------------------------------------------------------------------------------------------------


def mentions(text: str) -> Q:
    """The run, or any of its steps, holds the text."""
    in_run = reduce(or_, (contains(field, text) for field in RUN_TEXTS))
    in_steps = step_texts(Step.objects.filter(run=OuterRef("pk"))).filter(in_step(text))
    return in_run | Q(Exists(in_steps)) | _named(text)


def step_texts(steps: QuerySet[Step]) -> QuerySet[Step]:
    """Steps with what their JSON columns look like as text."""
    texts: dict[str, Any] = {f"{name}_text": Cast(f"payload__{name}", TextField()) for name in JSON_TEXTS}
    return steps.alias(**texts)


def in_step(text: str) -> Q:
    """Needs `step_texts`."""
    plain = reduce(or_, (contains(field, text) for field in STEP_TEXTS))
    encoded = [Q(**{f"{name}_text__icontains": form}) for name in JSON_TEXTS for form in _json_forms(text)]
    return reduce(or_, encoded, plain)


def contains(field: str, text: str) -> Q:
    return reduce(or_, (Q(**{f"{field}__icontains": form}) for form in _cases(text)))


def _cases(text: str) -> list[str]:
    """SQLite folds the case of ASCII letters only, so other letters are asked for in each case."""
    if connection.vendor == "postgresql" or text.isascii():
        return [text]
    return list(dict.fromkeys((text, text.lower(), text.upper(), text.title(), text.capitalize())))


def _json_forms(text: str) -> list[str]:
    """The text as it stands inside stored JSON: PostgreSQL keeps letters, SQLite holds \\u escapes."""
    ascii_only = connection.vendor != "postgresql"
    return list(dict.fromkeys(json.dumps(form, ensure_ascii=ascii_only)[1:-1] for form in _cases(text)))


def _named(text: str) -> Q:
    """The run's own number or id, written as people see it."""
    match = re.fullmatch(r"[rR]-([0-9]{1,9})", text, re.ASCII)
    if match:
        return Q(number=int(match[1]))
    if re.fullmatch(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}", text, re.ASCII):
        return Q(id=text)
    return Q(pk__in=())


# --- fields ----------------------------------------------------------------------------------------------------------


def _any_of(term: Term, *paths: str) -> Q:
    """A value equals a column, whatever the case; * stands for anything. Without values: a column is not empty."""
    if term.op == Op.ANY:
        return reduce(or_, (Q(**{f"{path}__isnull": False}) & ~Q(**{path: ""}) for path in paths))
    return reduce(or_, (Q(**lookup) for path in paths for lookup in _lookups(path, term)))


def _lookups(path: str, term: Term) -> Iterator[dict[str, str]]:
    for value in term.values:
        text = str(value)
        if "*" in text:
            yield {f"{path}__iregex": "^" + ".*".join(re.escape(part) for part in text.split("*")) + "$"}
        else:
            yield from ({f"{path}__iexact": form} for form in _cases(text))


def _number(term: Term, path: str, wrap: Any = lambda value: value) -> Q:
    if term.op == Op.ANY:
        return Q(**{f"{path}__isnull": False})
    if term.op == Op.BETWEEN:
        low, high = (wrap(value) for value in term.values)
        return Q(**{f"{path}__gte": low, f"{path}__lte": high})
    if term.op == Op.IS:
        return Q(**{f"{path}__in": [wrap(value) for value in term.values]})
    return Q(**{f"{path}__{term.op}": wrap(term.values[0])})


def _a_step(inner: Q) -> Q:
    return Q(Exists(Step.objects.filter(inner, run=OuterRef("pk"))))


def _an_action(inner: Q) -> Q:
    return Q(Exists(Action.objects.filter(inner, run=OuterRef("pk"))))


def _choice(path: str) -> Any:
    return lambda term: (
        Q(**{f"{path}__isnull": False}) if term.op == Op.ANY else Q(**{f"{path}__in": list(term.values)})
    )


def _agent(term: Term) -> Q:
    return _any_of(term, "agent__slug", "agent_version__definition__name")


def _user(term: Term) -> Q:
    people = _any_of(term, "owner__username", "owner__email", "owner__first_name", "owner__last_name")
    for value in term.values:
        first, _, last = str(value).partition(" ")
        if last and term.field.type == Type.NAME:
            people |= Q(owner__first_name__iexact=first, owner__last_name__iexact=last.strip())
    return people


def _task(term: Term) -> Q:
    if term.op == Op.ANY:
        return ~Q(task="")
    return reduce(or_, (contains("task", str(value)) for value in term.values))


def _cost(term: Term) -> Q:
    """With unpriced steps a run's cost is known only to be at least its sum: never below or equal to anything."""
    found = _number(term, "cost_usd")
    return found if term.op in (Op.GT, Op.GTE) else found & Q(unpriced_steps=0)


def _span(path: str) -> Any:
    return lambda term: _number(term, path, lambda value: dt.timedelta(milliseconds=min(int(value), 10**14)))


def _started(term: Term) -> Q:
    if term.op == Op.ANY:
        return Q(started_at__isnull=False)
    if term.op == Op.BETWEEN:
        return Q(created_at__gte=term.values[0], created_at__lt=term.values[1])
    return Q(**{f"created_at__{term.op}": term.values[0]})


def _risk(term: Term) -> Q:
    levels = [risk.value for risk in Risk]
    wanted = levels if term.op == Op.ANY else [str(value) for value in term.values]
    if term.op == Op.BETWEEN:
        wanted = levels[levels.index(wanted[0]) : levels.index(wanted[1]) + 1]
    elif term.op not in (Op.IS, Op.ANY):
        at = levels.index(wanted[0])
        cut = {Op.GT: levels[at + 1 :], Op.GTE: levels[at:], Op.LT: levels[:at], Op.LTE: levels[: at + 1]}
        wanted = cut[term.op]
    return _an_action(Q(risk__in=wanted))


def _run(term: Term) -> Q:
    numbers = [int(str(value)) for value in term.values if str(value).isdigit()]
    ids = [str(value) for value in term.values if not str(value).isdigit()]
    return Q(number__in=numbers) | Q(id__in=ids) if term.values else Q(pk__isnull=False)


def _has(term: Term) -> Q:
    names = [str(value) for value in term.values] or list(_HAS)
    conditions: list[Q] = [_HAS[name]() for name in names]
    return reduce(or_, conditions)


_HAS: dict[str, Any] = {
    "error": lambda: _a_step(Q(status="error")),
    "timeout": lambda: _a_step(Q(status="timeout")),
    "rejection": lambda: _an_action(Q(status="rejected")),
    "approval": lambda: Q(Exists(Action.objects.filter(run=OuterRef("pk"), batch__isnull=False))),
    "guardrail": lambda: _a_step(Q(kind="guardrail")),
    "wait": lambda: Q(wait_ms__gt=0) | Q(status="waiting"),
    "unpriced": lambda: Q(unpriced_steps__gt=0),
    "score": lambda: _a_step(Q(score__isnull=False)),
    "plan": lambda: Q(plan__isnull=False),
    "subagent": lambda: Q(Exists(Run.objects.filter(parent=OuterRef("pk")))),
    "fork": lambda: Q(forked_from__isnull=False),
    "result": lambda: ~Q(result=""),
    "simulated": lambda: Q(simulated=True),
}

_TERMS: dict[str, Any] = {
    "agent": _agent,
    "status": _choice("status"),
    "stop": _choice("stop_reason"),
    "mode": _choice("mode"),
    "tool": lambda term: _a_step(_any_of(term, "tool")),
    "model": lambda term: _a_step(_any_of(term, "model")),
    "kind": lambda term: _a_step(_choice("kind")(term)),
    "score": lambda term: _a_step(_number(term, "score", float)),
    "user": _user,
    "version": lambda term: _number(term, "agent_version__number"),
    "type": lambda term: _any_of(term, "task_type"),
    "task": _task,
    "cost": _cost,
    "duration": _span("took"),
    "wait": lambda term: _number(term, "wait_ms", lambda value: min(int(value), 2**62)),
    "tokens": lambda term: _number(term, "all_tokens"),
    "steps": lambda term: _number(term, "last_seq"),
    "risk": _risk,
    "since": _started,
    "until": _started,
    "started": _started,
    "run": _run,
    "has": _has,
}
