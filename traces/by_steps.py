"""Runs by what their steps are: one step, a sequence, so many steps. Answered through documents, from their
indexes as far as these go, and run by run, newest first, for what is left."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection
from django.db.models import (
    Case,
    Exists,
    F,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    When,
)
from django.db.models import Count as Number
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce
from django.db.models.lookups import Exact

from runs.models import SearchDocument, Step
from traces import step_matching, text_index
from traces.scope import Scope
from traces.text_index import Requirement
from traces.tree import Count, Node, Op
from traces.tree import Sequence as Steps

EVERY = Q(pk__isnull=False)
FEW = 500
"""Runs that are named one by one."""
CLOCKS = dt.timedelta(days=1)
"""A step begins after its run was made; the clocks of the machines that note both don't differ by more."""


def documents(scope: Scope) -> QuerySet[SearchDocument]:
    return SearchDocument.objects.filter(team=scope.team_id)


def some_document(
    scope: Scope,
    holds: Q,
    required: Sequence[Requirement],
    few: Q | None = None,
    *,
    of_run: QuerySet[Step] | None = None,
) -> Q:
    """The run has a document that holds: its runs by name where an index gives few, else looked for run by run.
    `of_run` finds the same of one run, in narrower rows."""
    found = text_index.narrowed(documents(scope).filter(holds), required)
    if found is None and few is not None and text_index.are_few(documents(scope).filter(few)):
        found = documents(scope).filter(holds)
    if found is not None:
        return these(found.values_list("run_id", flat=True))
    scope.walks = True
    return Q(Exists(of_run if of_run is not None else SearchDocument.objects.filter(holds, run=OuterRef("pk"))))


def these(run_ids: Iterable[uuid.UUID]) -> Q:
    """Runs by their ids."""
    return Q(id__in=_listed(run_ids))


def of_these(run_ids: Iterable[uuid.UUID]) -> Q:
    """Documents of these runs."""
    return Q(run__in=_listed(run_ids))


def _listed(run_ids: Iterable[uuid.UUID]) -> Any:
    """There may be thousands: these go as one parameter."""
    ids = list(dict.fromkeys(run_ids))
    if len(ids) <= FEW:
        return ids
    if connection.vendor == "postgresql":
        return RawSQL("SELECT unnest(%s::uuid[])", [ids])
    return RawSQL("SELECT value FROM json_each(%s)", [json.dumps([each.hex for each in ids])])


def a_step(node: Node, scope: Scope) -> Q:
    if step_matching.is_indexed(node):
        return _by_column(node, scope)
    of_steps = Step.objects.filter(step_matching.condition(node, scope, step_matching.STEPS)).order_by()
    times = list(step_matching.began(node))
    if times:
        began = [step_matching.moment(term, "started_at") for term in times]
        if text_index.are_few(Step.objects.filter(*began).order_by()):
            return these(of_steps.filter(run__team=scope.team_id).values_list("run_id", flat=True))
    of_run = of_steps.filter(run=OuterRef("pk")) if step_matching.is_narrow(node) else None
    holds, selective = step_matching.of_step(node, scope), step_matching.selective(node, scope)
    found = some_document(scope, holds, step_matching.required(node), selective, of_run=of_run)
    ends = [end for _, end in map(step_matching.span, times) if end]
    return found & Q(created_at__lt=min(ends) + CLOCKS) if ends else found


def _by_column(node: Node, scope: Scope) -> Q:
    """The run has a step that an index by a column tells all of."""
    holds = step_matching.of_step(node, scope)
    run_ids = documents(scope).filter(holds).values("run")
    if text_index.are_few(run_ids):
        first = list(run_ids.values_list("run", flat=True)[: FEW + 1])
        return these(first) if len(first) <= FEW else _among(run_ids)
    scope.walks = True
    # With the team the index answers alone, and no document is read.
    return Q(Exists(documents(scope).filter(holds, run=OuterRef("pk"))))


def sequence(node: Steps, scope: Scope) -> Q:
    if len(node.steps) == 1:
        return a_step(node.steps[0], scope)
    chained = Q(Exists(_chain(node, scope).filter(run=OuterRef("pk"))))
    candidates = _candidates(node, scope)
    if candidates is None:
        scope.walks = True
        return _with_steps(node, scope) & chained
    run_ids = set(candidates.values_list("run_id", flat=True))
    scope.walks = scope.walks or len(run_ids) > FEW
    return these(run_ids) & chained


def _candidates(node: Steps, scope: Scope) -> QuerySet[SearchDocument] | None:
    """Documents of one step of the sequence, of which there are few; every matching run has one."""
    for step in node.steps:
        found = step_matching.rare(step, scope, documents(scope))
        if found is not None:
            return found
    return None


def _with_steps(node: Steps, scope: Scope) -> Q:
    """Runs that have a step of each kind, in any order, as far as indexes by columns tell: the cheaper question."""
    found = EVERY
    for step in node.steps:
        selected = step_matching.selective(step, scope)
        if selected is not None:
            selecting = documents(scope).filter(selected)
            if text_index.are_few(selecting, text_index.MANY):
                found &= _among(selecting.values("run"))
    return found


def _among(run_ids: QuerySet[Any]) -> Q:
    """Runs of a set that is made once, while the walk goes on by time: as a plain IN the planners begin with the set,
    and look at all of it before they sort."""
    return Q(Exact(Case(When(id__in=run_ids, then=True), default=False), True))


def _chain(node: Steps, scope: Scope) -> QuerySet[SearchDocument]:
    """The documents with which such a sequence begins."""
    follows: QuerySet[SearchDocument] | None = None
    for place in reversed(range(len(node.steps))):
        found = SearchDocument.objects.filter(step_matching.of_step(node.steps[place], scope))
        if follows is not None:
            found = found.filter(Exists(follows))
        if place:
            later = {"seq": OuterRef("seq") + 1} if node.next_ones[place - 1] else {"seq__gt": OuterRef("seq")}
            found = found.filter(run=OuterRef("run"), **later)
        follows = found
    if follows is None:
        raise ValueError("a sequence without steps")
    return follows


def counted_steps(node: Count, scope: Scope) -> Q:
    rare = _candidates(node.sequence, scope)
    step = node.sequence.steps[0]
    if len(node.sequence.steps) == 1:
        each = rare if rare is not None else _indexed(step, scope)
        if each is not None:
            # As a plain column SQLite would go through the whole index in which runs stand together.
            run = Coalesce("run_id", "run_id")
            counts = each.order_by().annotate(of=run).values("of").annotate(n=Number("*"))
            fits = step_matching.compared(node, F("n"))
            if counted(node, 0):
                return ~these(counts.filter(~fits).values_list("of", flat=True))
            return these(counts.filter(fits).values_list("of", flat=True))
    begun = _chain(node.sequence, scope).filter(run=OuterRef("pk")).order_by().values("run")
    number_of = Coalesce(Subquery(begun.annotate(n=Number("*")).values("n")), 0, output_field=IntegerField())
    compared = step_matching.compared(node, number_of)
    if rare is not None and not counted(node, 0):
        return these(rare.values_list("run_id", flat=True)) & compared
    scope.walks = True
    return compared


def _indexed(step: Node, scope: Scope) -> QuerySet[SearchDocument] | None:
    """The documents of a step that an index by a column tells all of, when these are not too many to go through."""
    if not step_matching.is_indexed(step):
        return None
    found = documents(scope).filter(step_matching.of_step(step, scope))
    return found if text_index.are_few(found, text_index.MANY) else None


def counted(node: Count, count: int) -> bool:
    """Whether so many steps are as many as asked for."""
    if node.op == Op.ANY:
        return count > 0
    if node.op == Op.BETWEEN:
        return node.values[0] <= count <= node.values[1]
    if node.op == Op.IS:
        return count in node.values
    value = node.values[0]
    return {Op.GT: count > value, Op.GTE: count >= value, Op.LT: count < value, Op.LTE: count <= value}[node.op]
