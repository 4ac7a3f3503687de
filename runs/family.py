"""Budgets of runs that belong together. A sub-agent's run spends its parents' money too: what the whole tree has spent
and reserved stays within the limits of each run above.

Every reservation within a tree first takes the row of its root, so that they happen one after another; what is summed
then is what is committed. Nothing is counted twice in another column: a worker that died with a reservation holds
nothing back once its lease is free.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import F, Q, Sum

from runs.engine.ports import BudgetExceeded
from runs.engine.types import StopReason
from runs.models import Run

MOST_LEVELS = 20
_SPENT = ("cost_usd", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "unpriced_steps")
_PROMPT = F("input_tokens") + F("cache_read_tokens") + F("cache_write_tokens") + F("reserved_input_tokens")
_USED = {
    "usd": F("cost_usd") + F("lost_usd") + F("reserved_usd"),
    "input_tokens": _PROMPT,
    "output_tokens": F("output_tokens") + F("reserved_output_tokens"),
}
_KEPT = {"usd": "kept_usd", "input_tokens": "kept_input_tokens", "output_tokens": "kept_output_tokens"}


@dataclass(slots=True)
class Below:
    """What the runs below one have used so far, whatever has become of them."""

    runs: int = 0
    cost_usd: Decimal = Decimal(0)
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    unpriced_steps: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cache_read_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A run's ancestors, its root first. `has_children`: it may start runs of its own."""

    run_id: uuid.UUID
    ancestors: tuple[uuid.UUID, ...]
    has_children: bool

    @property
    def is_alone(self) -> bool:
        return not self.ancestors and not self.has_children


def family_of(run: Run) -> Family:
    """Who is above a run never changes."""
    above: list[uuid.UUID] = []
    parent = run.parent_id
    while parent is not None and len(above) < MOST_LEVELS:
        above.insert(0, parent)
        parent = Run.objects.values_list("parent_id", flat=True).get(id=parent)
    has_children = bool(run.agent_version.definition.get("subagents"))
    return Family(run_id=run.id, ancestors=tuple(above), has_children=has_children)


def hold(family: Family) -> None:
    """Takes the tree for this transaction. First of all rows, so that two reservations never wait for each other."""
    root = family.ancestors[0] if family.ancestors else family.run_id
    Run.objects.select_for_update(no_key=True).only("id").get(id=root)


def check(family: Family) -> None:
    """Raises `BudgetExceeded` when the run's own reservation, made just before, is too much for a run above it, or for
    the run itself together with those below it. What other runs keep back to answer with is not there for this one.
    Within the transaction of `hold` and of the reservation."""
    others = Q(ended_at__isnull=True) & ~Q(id=family.run_id)
    sums = {name: Sum(used) for name, used in _USED.items()}
    sums |= {f"kept_{name}": Sum(kept, filter=others) for name, kept in _KEPT.items()}
    chain = (*family.ancestors, *((family.run_id,) if family.has_children else ()))
    for ancestor in Run.objects.filter(id__in=chain).order_by("created_at", "id"):
        found = Run.objects.filter(id__in=_tree(ancestor.id)).aggregate(**sums)
        over = (
            (ancestor.max_cost_usd, "usd", StopReason.MAX_COST, "budget"),
            (ancestor.max_input_tokens, "input_tokens", StopReason.MAX_TOKENS, "limit of input tokens"),
            (ancestor.max_output_tokens, "output_tokens", StopReason.MAX_TOKENS, "limit of output tokens"),
        )
        for limit, name, reason, what in over:
            if limit is not None and (found[name] or 0) + (found[f"kept_{name}"] or 0) > limit:
                whose = "this run with its sub-agents" if ancestor.id == family.run_id else f"{ancestor.short_id} above"
                raise BudgetExceeded(reason, f"what is left of the {what} of {whose} does not cover another step")


def below(run_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Below]:
    """Of each of these runs, in one query for each level of the deepest tree."""
    found: dict[uuid.UUID, Run] = {}
    level = set(run_ids)
    while level:
        rows = Run.objects.filter(parent_id__in=level).only("parent_id", *_SPENT)
        new = {row.id: row for row in rows if row.id not in found}
        found |= new
        level = set(new)
    sums = {run_id: Below() for run_id in run_ids}
    for row in found.values():
        above = row.parent_id
        while above is not None:
            if (total := sums.get(above)) is not None:
                total.runs += 1
                for name in _SPENT:
                    setattr(total, name, getattr(total, name) + getattr(row, name))
            above = found[above].parent_id if above in found else None
    return sums


def _tree(root: uuid.UUID) -> Sequence[uuid.UUID]:
    """The run and all runs below it, level by level."""
    found, level = [root], [root]
    while level and len(found) < 100_000:
        level = list(Run.objects.filter(parent_id__in=level).values_list("id", flat=True))
        found += level
    return found
