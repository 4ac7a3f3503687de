"""Whether the world a dry run was planned on still stands, by the tools' own preconditions."""

from __future__ import annotations

import datetime as dt
import importlib
import uuid
from collections.abc import Iterable, Sequence

from django.db.models import Q
from django.utils import timezone

from runs.engine.ports import PlanRefused, Tool, ToolConnectionLost, ToolTimeout, ToolUnavailable
from runs.engine.types import ActionStatus, Mode, RunStatus, ToolPlan
from runs.models import Action, Run
from runs.verdicts import what_changed

EVERY = dt.timedelta(minutes=1)
REPORT_LIVES = dt.timedelta(hours=24)
AT_ONCE = 20
PROPOSED = (ActionStatus.PENDING, ActionStatus.APPROVED)


def check_due() -> int:
    """Looks again at the reports that were not looked at for a minute; returns how many. An errand of the workers."""
    now = timezone.now()
    ready = Run.objects.filter(mode=Mode.DRY_RUN, status=RunStatus.DRY_RUN_READY, ended_at__gt=now - REPORT_LIVES)
    unchecked = Q(actions__checked_at__isnull=True) | Q(actions__checked_at__lte=now - EVERY)
    due = ready.filter(unchecked, actions__status__in=PROPOSED).distinct().order_by("-ended_at")[:AT_ONCE]
    runs = list(due.select_related("agent_version", "team", "agent"))
    for run in runs:
        check(run, proposals(run))
    return len(runs)


def proposals(run: Run) -> list[Action]:
    """What nobody carried out yet, in the order it would run."""
    return list(run.actions.filter(status__in=PROPOSED, batch__isnull=True).order_by("position", "created_at", "id"))


def is_over(run: Run) -> bool:
    return run.ended_at is not None and run.ended_at + REPORT_LIVES <= timezone.now()


def check(run: Run, actions: Sequence[Action]) -> None:
    """Asks each action's tool, outside any transaction, and notes on the row what has changed. A tool that can't be
    reached says nothing new: the claim before the effect asks it once more anyway."""
    tools = tools_of(run)
    for action in actions:
        said = _changed(action, tools.get(action.tool))
        if said is not None:
            action.checked_at, action.changed = timezone.now(), said
            Action.objects.filter(id=action.id).update(checked_at=action.checked_at, changed=said)


def plans_now(run: Run, actions: Iterable[Action]) -> dict[uuid.UUID, ToolPlan | str]:
    """A plan of each on the world as it is, or why there is none."""
    tools = tools_of(run)
    found: dict[uuid.UUID, ToolPlan | str] = {}
    for action in actions:
        tool = tools.get(action.tool)
        try:
            plan = tool.plan(action.args) if tool is not None and tool.spec.can_plan else None
        except (PlanRefused, ToolTimeout, ToolUnavailable, ToolConnectionLost) as error:
            found[action.id] = str(error) or "the tool did not answer"
            continue
        found[action.id] = plan if plan is not None else "this tool can't plan"
    return found


def tools_of(run: Run) -> dict[str, Tool]:
    """Imported when first needed: the SDK behind it costs 0.7 s, which a web process pays only when it is used."""
    found: dict[str, Tool] = importlib.import_module("runs.toolbox").tools_for(run)
    return found


def _changed(action: Action, tool: Tool | None) -> str | None:
    """None when nobody can tell now."""
    if tool is None:
        return "the tool is not there any more"
    if tool.spec.version != action.tool_version:
        return "the tool has changed since this was proposed"
    if not tool.spec.can_plan:
        return ""
    try:
        plan = tool.plan(action.args)
    except PlanRefused as refused:
        return f"the tool would refuse it now: {refused}"[:500]
    except (ToolTimeout, ToolUnavailable, ToolConnectionLost):
        return None
    if plan is None or plan.preconditions == action.preconditions:
        return ""
    return what_changed(action, plan.preconditions).removeprefix("what it was planned on has changed: ")
