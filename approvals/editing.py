"""A person's edit: never a change of an Action, always a new one that supersedes it, validated and routed afresh."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from accounts.models import Team, User
from runs import audit, lifecycle, previews
from runs.catalog import catalog
from runs.engine import raising
from runs.engine.policy import route
from runs.engine.ports import InvalidArguments
from runs.engine.types import ActionStatus, Call, JsonObject, Route, ToolGrant, ToolPlan, ToolSpec
from runs.models import Action, Run
from runs.schemas import AgentIn
from runs.tools.base import check_json
from runs.verdicts import new_action


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Arguments that the tool's schema accepts, and where the policy sends them."""

    call: Call
    spec: ToolSpec
    route: Route


def prepare(action: Action, args: JsonObject) -> Edit:
    """Raises InvalidArguments with the fields that do not fit, or with the rule that forbids the edit."""
    spec = tool_spec(action.run.team, action.tool)
    if spec is None:
        raise InvalidArguments([("", f"The tool {action.tool} is no longer known here, so nothing can be checked.")])
    validate(spec.input_schema, args)
    # No confidence: the model's was in its own arguments.
    call = Call(
        intent=action.intent, tool_call_id=action.tool_call_id, tool=action.tool, args=args, reasoning=action.reasoning
    )
    chosen = _route(action.run, call, spec)
    if chosen.outcome == "forbid":
        raise InvalidArguments([("", f"Not possible: {chosen.reason}.")])
    return Edit(call=call, spec=spec, route=chosen)


def editable_args(action: Action) -> JsonObject | None:
    """What a person may change of it: the arguments of an action, the call of a question; None if nothing."""
    if action.kind == "action":
        return dict(action.args)
    call = action.args.get("call") if action.kind == "question" and action.tool else None
    return dict(call) if isinstance(call, dict) else None


def check_answer(action: Action, args: JsonObject | None) -> None:
    """Raises InvalidArguments where the corrected call of an answer does not fit the tool that was asked about."""
    if args is None:
        return
    spec = tool_spec(action.run.team, action.tool) if editable_args(action) is not None else None
    if spec is None:
        raise InvalidArguments([("", "This question is not about a call, so it takes a text only.")])
    validate(spec.input_schema, args)


def supersede(action: Action, edit: Edit, editor: User, at: dt.datetime) -> Action | None:
    """The new pending action, or None when the old one moved meanwhile. Call within a transaction."""
    if not lifecycle.supersede(action.id, action.digest, by=editor, at=at):
        return None
    plan = ToolPlan(
        summary=action.plan_summary,
        preview=previews.after_edit(action.preview, edit.call.args) or {},
        preconditions=_preconditions(action, edit.call.args),
    )
    pending = ActionStatus.PENDING
    new = new_action(action.run, edit.call, edit.spec, plan, edit.route, position=action.position, status=pending)
    new.preview = plan.preview or None
    new.needed = max(edit.route.needed, 1)
    if action.needed > new.needed:
        # The editor alone can't complete what two people had to decide, by making it small enough for one.
        new.needed = action.needed
        new.route_reason = f"what it replaces needed {action.needed} people, and so does the change of it"
    new.supersedes, new.batch_id, new.expires_at = action, action.batch_id, action.expires_at
    new.save(force_insert=True)
    audit.record(
        new, "action.proposed", editor, route=edit.route.outcome, reason=edit.route.reason, supersedes=str(action.id)
    )
    return new


def validate(schema: Mapping[str, object], args: JsonObject) -> None:
    """Raises InvalidArguments naming every field that does not fit. Never fetches what the schema refers to."""
    check_json(args)
    checker: type[Validator] = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    found = checker(schema, registry=EMPTY_REGISTRY).iter_errors(args)
    try:
        errors = sorted(found, key=lambda error: [str(part) for part in error.absolute_path])
    except Unresolvable as missing:
        raise InvalidArguments([("", f"The tool's schema refers to {missing.ref}, which is not there.")]) from None
    if errors:
        raise InvalidArguments([_problem(error) for error in errors])


def tool_spec(team: Team, name: str) -> ToolSpec | None:
    """As last found: no tool server is asked for an edit."""
    if name == raising.TOOL.name:
        return raising.TOOL
    entry = catalog(team).get(name)
    return entry.spec if entry else None


def grant_of(run: Run, tool: str) -> ToolGrant | None:
    """The line of the run's agent version for this tool."""
    agent = AgentIn.model_validate(run.agent_version.definition)
    return next((grant.to_engine() for grant in agent.tools if grant.name == tool), None)


def _route(run: Run, call: Call, spec: ToolSpec) -> Route:
    """Never released by confidence: whatever the policy would let run alone is approved by a person after an edit."""
    if spec is raising.TOOL:
        return raising.ROUTE
    chosen = route(replace(call, confidence=1.0), spec, grant_of(run, call.tool))
    if chosen.outcome != "release":
        return chosen
    return Route(outcome="ask", reason="a person changed its arguments", risk=chosen.risk, needed=1)


def _preconditions(action: Action, args: JsonObject) -> JsonObject:
    """What the old plan stood on. A precondition that only repeats an argument follows the argument."""
    return {
        name: args.get(name, value) if action.args.get(name) == value else value
        for name, value in action.preconditions.items()
    }


def _problem(error: jsonschema.ValidationError) -> tuple[str, str]:
    """(field, words). The value itself is not repeated: the person has it in front of them."""
    path = ".".join(str(part) for part in error.absolute_path)
    limit: Any = error.validator_value
    instance: Any = error.instance
    if error.validator == "required":
        missing = next((name for name in limit if name not in instance), "")
        return f"{path}.{missing}".strip("."), "This is needed."
    words = PROBLEMS.get(str(error.validator))
    if words is None:
        return path, "This does not fit the tool's schema."
    return path, words.format(", ".join(map(str, limit)) if isinstance(limit, list) else limit)


PROBLEMS = {
    "type": "This must be of type {}.",
    "enum": "This must be one of {}.",
    "const": "This must be {}.",
    "minLength": "At least {} characters are needed.",
    "maxLength": "At most {} characters are allowed.",
    "pattern": "This must match the pattern {}.",
    "minimum": "This must be {} or more.",
    "maximum": "This must be {} or less.",
    "exclusiveMinimum": "This must be more than {}.",
    "exclusiveMaximum": "This must be less than {}.",
    "multipleOf": "This must be a multiple of {}.",
    "minItems": "At least {} entries are needed.",
    "maxItems": "At most {} entries are allowed.",
    "uniqueItems": "An entry stands here twice.",
    "minProperties": "At least {} fields are needed.",
    "additionalProperties": "This has a field that the tool does not know.",
}
