"""Content filters where a run is stored and shown: rows hold what was left after redaction, and the real values sealed
beside them, for the worker that goes on with the run. Nothing that shows, searches or exports reads the seal."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

from accounts.models import Team
from accounts.secrets import UnreadableSecret, decrypt, encrypt
from runs.asked import RunMessage
from runs.engine import filters
from runs.engine.filters import Filters
from runs.engine.screening import listed
from runs.engine.types import Step
from runs.models import Run, StepPayload
from runs.schemas import AgentIn, FiltersIn

logger = logging.getLogger(__name__)
FIELDS = ("title", "summary", "input", "output", "reasoning", "error")
LEAST_SHOWN = 6


def filters_of(team: Team, definition: AgentIn) -> Filters:
    """The agent's own, else the team's, else the defaults."""
    return (definition.filters or FiltersIn.model_validate(team.content_filters)).to_engine()


def filters_for(run: Run) -> Filters:
    return filters_of(run.team, AgentIn.model_validate(run.agent_version.definition))


def refused(task: str, wanted: Filters) -> str:
    """Why a task is not taken; empty when it is."""
    found = filters.names_in(task, wanted, filters.BLOCK)
    return f"The task holds {listed(found)}, which this agent's content filter blocks. Take it out." if found else ""


# --- the task --------------------------------------------------------------------------------------------------------


def keep_task(run: Run, task: str, wanted: Filters) -> None:
    """Sets the run's task as it is stored and shown, and the seal of the real one where they differ."""
    run.task = filters.redact(task, wanted)
    run.sealed = None if run.task == task else encrypt(json.dumps({"task": task}))


def task_of(run: Run) -> str:
    """The task as the person wrote it: for the model alone."""
    return str(unsealed(run.sealed, str(run.id)).get("task", run.task))


# --- what people and sub-agents say -----------------------------------------------------------------------------------


def keep_message(message: RunMessage, text: str, wanted: Filters) -> None:
    """As `keep_task`, for what a person tells a run."""
    message.text = filters.redact(text, wanted)
    message.sealed = None if message.text == text else encrypt(json.dumps({"text": text}))


def text_of(message: RunMessage) -> str:
    """As the person wrote it: for the model alone."""
    return str(unsealed(message.sealed, f"message {message.id}").get("text", message.text))


def answer_of(child: Run, wanted: Filters) -> str:
    """A sub-agent's answer for its parent's model: the real one, if the filters of the parent, `wanted`, keep the same
    out of the parent's rows. Else it is given as it is shown."""
    payload = StepPayload.objects.filter(step__run=child, step__key="result", sealed__isnull=False).first()
    hidden = unsealed(payload.sealed, f"the result of {child.id}") if payload else {}
    real = str(hidden.get("output", child.result))
    return real if filters.redact(real, wanted) == child.result else child.result


# --- steps -----------------------------------------------------------------------------------------------------------


def kept(step: Step, wanted: Filters) -> Step:
    """The step as rows hold it, with the seal of what was taken out; the very same object when nothing was found."""
    changed = {name: filters.redacted(getattr(step, name), wanted) for name in FIELDS}
    changed = {name: value for name, value in changed.items() if value is not getattr(step, name)}
    if changed and step.summary:
        changed["summary"] = _without_rest(changed.get("summary", step.summary), step)
    plan = filters.redacted(step.plan, wanted)
    outcome = step.outcome and replace(step.outcome, result=filters.redacted(step.outcome.result, wanted))
    if not changed and plan is step.plan and (outcome is None or outcome == step.outcome):
        return step
    hidden = {name: getattr(step, name) for name in changed}
    sealed = encrypt(json.dumps(hidden)) if hidden else None
    return replace(step, plan=plan, outcome=outcome, sealed=sealed, **changed)


def opened(step: Step, sealed: Any) -> Step:
    """With the real values. Under another SECRET_KEY the run goes on with what is shown."""
    hidden = unsealed(sealed, step.key)
    return replace(step, **{name: value for name, value in hidden.items() if name in FIELDS}) if hidden else step


def _without_rest(summary: str, step: Step) -> str:
    """A summary is cut, perhaps in the middle of what was found in the whole text: then its end goes too."""
    if len(step.summary) < 299:
        return summary
    cut = summary.rfind(" ", 0, len(summary) - LEAST_SHOWN)
    return f"{summary[: max(cut - 40, 0)]}…"


def unsealed(sealed: Any, what: str) -> dict[str, Any]:
    """What is sealed, by field; nothing where there is no seal or it can't be read."""
    if sealed is None:
        return {}
    try:
        found = json.loads(decrypt(sealed))
    except UnreadableSecret:
        logger.warning("What was redacted of %s can't be read with the present SECRET_KEY", what)
        return {}
    return found if isinstance(found, dict) else {}
