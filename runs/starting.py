"""The row of a new run, whoever asks for it: a person, a run that delegates, a fork."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Max

from accounts import receipts
from accounts.models import Team, User
from runs import documents, filtering
from runs.models import Agent, Run
from runs.schemas import AgentIn, LimitsIn


def create(team: Team, agent: Agent, owner: User, limits: LimitsIn, actor: User | str, kind: str, **fields: Any) -> Run:
    """A queued run of the agent's current version, with its search document and a receipt. Within a transaction."""
    run = Run(
        team=team,
        number=_next_number(team),
        agent=agent,
        agent_version=agent.current,
        owner=owner,
        simulated=settings.SIMULATED,
        **{**limits.model_dump(include=set(LimitsIn.model_fields)), **fields},
    )
    definition = AgentIn.model_validate(agent.current.definition if agent.current else {"name": "none"})
    filtering.keep_task(run, run.task, filtering.filters_of(team, definition))
    run.save(force_insert=True)
    documents.write_run(run)
    receipts.append(
        team.id,
        kind,
        actor=actor,
        subject_type="run",
        subject_id=run.id,
        payload={"agent": agent.slug, "mode": str(run.mode)},
    )
    return run


def _next_number(team: Team) -> int:
    """Taken under the team's row, so that two launches at once get two numbers."""
    Team.objects.select_for_update().get(id=team.id)
    return (Run.objects.filter(team=team).aggregate(most=Max("number"))["most"] or 0) + 1
