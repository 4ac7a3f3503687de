"""Separation of duties: who launched a run does not approve its risky actions, where the policy says so.

The policy is the tool's own word (`own_approval`), else the risk: high and critical are not one's own to approve alone.
As one of two people the requester counts, unless the tool's policy says otherwise: the other one is somebody else.
A team can switch it off or on; untouched, it holds as soon as somebody else could decide, so a team of one can work.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from django.db.models import Q

from accounts.access import Access
from accounts.models import Team
from accounts.schemas import Separation
from runs.engine.types import Risk
from runs.models import Action, AgentVersion, Run

RISKY = frozenset({Risk.HIGH, Risk.CRITICAL})


def bar(access: Access, run: Run, action: Action, team: Team | None = None) -> str:
    """Why this person may not approve this action; empty when they may. `team`: as it was just read."""
    if run.owner_id != access.user.id:
        return ""
    stated = _stated(run, action.tool)
    if not (stated == "refused" if stated else action.risk in RISKY and action.needed < 2):
        return ""
    mode = (team or access.team).separation
    if mode == Separation.OFF or (mode == Separation.AUTO and not access.others_decide):
        return ""
    why = "by the policy of this tool" if stated else f"because its risk is {action.risk}"
    return f"You launched this run, so somebody else must approve this, {why}."


def barred(access: Access) -> Q:
    """The same as a condition on actions, for counting and filtering many."""
    separation = access.team.separation
    if separation == Separation.OFF or (separation == Separation.AUTO and not access.others_decide):
        return Q(pk__in=[])
    by_policy = {stated: Q(pk__in=[]) for stated in ("allowed", "refused")}
    for version, tools in _policies_of_own(access):
        for tool, stated in tools:
            by_policy[stated] |= Q(run__agent_version=version, tool=tool)
    by_risk = Q(risk__in=list(RISKY), needed__lt=2) & ~by_policy["allowed"]
    return Q(run__owner=access.user, status="pending", kind="action") & (by_policy["refused"] | by_risk)


def _policies_of_own(access: Access) -> Iterator[tuple[uuid.UUID, list[tuple[str, str]]]]:
    """What a version's policies say of one's own actions, for each version that a run of one's own waits with."""
    waiting = Run.objects.filter(team=access.team, owner=access.user, batches__status="open")
    for version in AgentVersion.objects.filter(id__in=waiting.values("agent_version")).only("definition"):
        tools = version.definition.get("tools") or ()
        yield version.id, [(tool["name"], tool["own_approval"]) for tool in tools if tool.get("own_approval")]


def _stated(run: Run, tool: str) -> str | None:
    for grant in run.agent_version.definition.get("tools") or ():
        if grant.get("name") == tool:
            stated: str | None = grant.get("own_approval")
            return stated
    return None
