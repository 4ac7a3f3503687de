"""The engine's `Children` over the ORM: runs that a run starts, and what becomes of them when it ends."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from django.db import transaction
from django.utils import timezone

from runs import filtering, lifecycle, starting
from runs.doorbell import ring
from runs.engine.ports import LeaseLost
from runs.engine.types import Child, Room, RunStatus
from runs.leases import Lease
from runs.models import Agent, Run
from runs.schemas import AgentIn, LimitsIn


class DbChildren:
    def __init__(self, run: Run, lease: Lease) -> None:
        self.run = run
        self.lease = lease

    def find(self, intent: str) -> Child | None:
        row = Run.objects.filter(parent_id=self.run.id, parent_intent=intent).select_related("agent_version").first()
        if row is None:
            return None
        answer = filtering.answer_of(row, filtering.filters_for(self.run)) if row.is_ended else ""
        return replace(_child(row), result=answer)

    def start(self, intent: str, agent: str, task: str, budget_usd: Decimal | None, kept: Room) -> Child:
        """Raises `LeaseLost`: a worker that lost the run starts nothing in its name."""
        known = self.find(intent)
        if known is not None:
            return known
        with transaction.atomic():
            # Held until the child is there: cancelling the parent comes before it or finds it.
            held = Run.objects.select_for_update().get(id=self.run.id)
            if held.status != RunStatus.RUNNING or held.lease_owner != self.lease.owner:
                raise LeaseLost(f"run {self.run.id} is no longer held by {self.lease.owner}")
            Run.objects.filter(id=held.id).update(
                kept_usd=kept.usd, kept_input_tokens=kept.input_tokens, kept_output_tokens=kept.output_tokens
            )
            chosen = Agent.objects.select_related("current").get(team_id=self.run.team_id, slug=agent)
            child = starting.create(
                self.run.team,
                chosen,
                self.run.owner,
                self._limits(chosen, budget_usd, kept),
                "agentsite",
                "run.delegated",
                parent=self.run,
                parent_intent=intent,
                task=task.strip(),
                task_type=self.run.task_type,
                mode=self.run.mode,
            )
            if held.wish == "pause":  # said between the parent's last look and this
                lifecycle.request_pause(child.id, held.paused_with or held.id)
            transaction.on_commit(lambda: ring(child.id), robust=True)
        return _child(child)

    def _limits(self, agent: Agent, budget_usd: Decimal | None, kept: Room) -> LimitsIn:
        """Its agent's own, cut to what the parent has left beyond what it needs to answer. What all spend together each
        reservation looks at."""
        parent, limits = self.run, AgentIn.model_validate(agent.current.definition if agent.current else {}).limits
        prompt = parent.input_tokens + parent.cache_read_tokens + parent.cache_write_tokens
        started = parent.started_at or timezone.now()
        seconds = int((timezone.now() - started).total_seconds() - parent.wait_ms / 1000)
        used = {
            "max_cost_usd": parent.cost_usd + parent.lost_usd + kept.usd,
            "max_input_tokens": prompt + kept.input_tokens,
            "max_output_tokens": parent.output_tokens + kept.output_tokens,
            "max_seconds": seconds,
        }
        cut = {}
        for name, spent in used.items():
            above = getattr(parent, name)
            ways = [getattr(limits, name), None if above is None else above - spent]
            ways += [budget_usd] if name == "max_cost_usd" else []
            known = [value for value in ways if value is not None]
            cut[name] = max(min(known), LEAST[name]) if known else None
        return limits.model_copy(update=cut)


LEAST = {"max_cost_usd": Decimal("0.000001"), "max_input_tokens": 1, "max_output_tokens": 1, "max_seconds": 1}


def _child(row: Run) -> Child:
    return Child(
        id=str(row.id),
        agent=str(row.agent_version.definition["name"]),
        status=RunStatus(row.status),
        stop_detail=row.stop_detail,
    )


def subagents_of(run: Run, slugs: list[str]) -> tuple[tuple[str, str], ...]:
    """(slug, purpose) of those that are still there, in the agent's order."""
    if not slugs:
        return ()
    rows = Agent.objects.filter(team_id=run.team_id, slug__in=slugs, current__isnull=False).select_related("current")
    found = {row.slug: str(row.current.definition.get("purpose") or "") for row in rows if row.current}
    return tuple((slug, found[slug]) for slug in slugs if slug in found)


def slugs_above(run: Run) -> tuple[str, ...]:
    return tuple(row.agent.slug for row in above(run))


def above(run: Run) -> list[Run]:
    """The runs above, the first one first."""
    found: list[Run] = []
    parent = run.parent_id
    while parent is not None:
        row = Run.objects.select_related("agent", "agent_version").get(id=parent)
        found.insert(0, row)
        parent = row.parent_id
    return found
