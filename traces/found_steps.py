"""The steps that a query's `step:{…}` finds, added up. A row of the cost report leads to them: a run may have used
other models and tools besides, or have begun before the period, so that sums over whole runs say something else."""

from __future__ import annotations

from functools import reduce
from operator import or_

from django.db.models import BigIntegerField, Count, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from accounts.access import Access, rows
from runs.models import Run, SearchDocument, Step
from traces import costs, matching, step_matching
from traces.by_steps import FEW
from traces.scope import Scope
from traces.step_matching import STEPS
from traces.tally import Tally, nano_usd, summed
from traces.tree import And, Node, Not, Or, Query, Sequence, Term

CACHE_FIELDS = ("cache_read", "cache_write", "cache_lost", "cache_hit")


def found_steps(access: Access, query: Query, scope: Scope) -> costs.Row | None:
    """Of the found runs, the steps for which one of the query's `step:{…}` holds. None without such a condition, and
    where the texts in it are so common that not every step can be looked at. The row's `runs` and percentiles mean
    nothing here, and the cache's ledger is only there if the query asks about the cache."""
    wanted = _wanted(query)
    matching_steps = _matching([node.steps[0] for node in wanted], scope)
    if matching_steps is None:
        return None
    rest = tuple(node for node in query.conditions if len(wanted) > 1 or node is not wanted[0])
    runs = matching.matching(rows(access, Run), And(rest) if rest else None, Scope(scope.team_id, scope.now))
    found = _of(runs, matching_steps)
    return costs.row_of("", summed(found) if asks_about_cache(query) else _sums(found))


def asks_about_cache(query: Query) -> bool:
    return any(_asks_about_cache(node.steps[0]) for node in _wanted(query))


def _wanted(query: Query) -> list[Sequence]:
    return [node for node in query.conditions if isinstance(node, Sequence) and len(node.steps) == 1]


def _of(runs: QuerySet[Run], steps: QuerySet[Step]) -> QuerySet[Step]:
    """Few runs are named, so that only their steps are read. With more, SQLite would go through the steps of them all
    instead of those of the time, if it saw that the column has an index."""
    ids = list(runs.values_list("id", flat=True)[: FEW + 1])
    if len(ids) <= FEW:
        return steps.filter(run__in=ids)
    return steps.alias(of=Coalesce("run_id", "run_id")).filter(of__in=runs.values("id"))


def _matching(nodes: list[Node], scope: Scope) -> QuerySet[Step] | None:
    """Of every team."""
    if not nodes:
        return None
    if len(nodes) == 1:
        documents = SearchDocument.objects.filter(team=scope.team_id)
        few = step_matching.rare(nodes[0], scope, documents)
        if few is not None:
            return Step.objects.filter(id__in=few.values("step"))
    if not all(step_matching.is_narrow(node) for node in nodes):
        return None
    return Step.objects.filter(reduce(or_, (step_matching.condition(node, scope, STEPS) for node in nodes)))


def _asks_about_cache(node: Node) -> bool:
    if isinstance(node, Term):
        return node.field.name in CACHE_FIELDS
    children = (node.node,) if isinstance(node, Not) else node.nodes if isinstance(node, And | Or) else ()
    return any(_asks_about_cache(child) for child in children)


def _sums(steps: QuerySet[Step]) -> Tally:
    kinds = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    sums = steps.order_by().aggregate(
        steps=Count("pk"),
        calls=Count("pk", filter=~Q(model="")),
        unpriced_steps=Count("pk", filter=Q(cost_usd__isnull=True)),
        cost=Coalesce(Sum(nano_usd()), 0, output_field=BigIntegerField()),
        **{f"{kind}_tokens": Coalesce(Sum(f"{kind}_tokens"), 0) for kind in kinds},
    )
    found = Tally()
    for name, value in sums.items():
        setattr(found, name, int(value))
    return found
