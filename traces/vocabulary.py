"""The fields of the query language: those of a run, and within `step:{…}` those of a step."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from runs.engine.types import ActionStatus, Mode, Risk, RunStatus, StepKind, StepStatus, StopReason
from traces.fields import Field, Type

HAS = {
    "error": "a step that failed",
    "timeout": "a step that timed out",
    "rejection": "an action that a person rejected",
    "approval": "actions that people were asked about",
    "guardrail": "a guardrail that acted",
    "wait": "a wait for a person",
    "unpriced": "a step without a price",
    "score": "a score",
    "note": "a note or score by a person",
    "more_text": "a step with more text than is searched",
    "plan": "a plan",
    "subagent": "a sub-agent",
    "fork": "a run it was forked from",
    "parent": "a run it was delegated by",
    "result": "a result",
    "simulated": "the simulated model",
}
STEP_HAS = {
    "error": "an error",
    "reasoning": "reasoning",
    "output": "an output",
    "input": "an input",
    "score": "a score",
    "note": "a note or score by a person",
    "more_text": "more text than is searched",
    "approval": "an action that people were asked about",
    "unpriced": "no price",
}
IS = {
    "live": "has not ended",
    "ended": "has ended",
    "waiting": "waits for a person",
    "unpriced": "has steps without a price",
    "over_budget": "reached its budget",
    "forked": "was forked from another run",
    "delegated": "is a sub-agent's",
    "looping": "was stopped in a loop",
    "flagged": "was stopped or warned by a guardrail",
    "simulated": "used the simulated model",
}
APPROVALS = {
    "approved": (ActionStatus.APPROVED, ActionStatus.EXECUTING, ActionStatus.SUCCEEDED, ActionStatus.FAILED),
    "rejected": (ActionStatus.REJECTED,),
    "pending": (ActionStatus.PENDING,),
    "answered": (ActionStatus.ANSWERED,),
    "expired": (ActionStatus.EXPIRED,),
    "cancelled": (ActionStatus.CANCELLED, ActionStatus.REVOKED),
    "superseded": (ActionStatus.SUPERSEDED,),
    "stale": (ActionStatus.STALE,),
    "unknown": (ActionStatus.UNKNOWN,),
}
"""What became of an action that people were asked about, by the statuses that mean it."""

REFUSED = (ActionStatus.REJECTED, ActionStatus.EXPIRED, ActionStatus.STALE, ActionStatus.REVOKED)
"""What was proposed and came to nothing, by a person's word or for want of one."""
STEP_IS = {"refused": "a turn whose every proposal was turned down or came too late"}
TIMES = ("since", "until", "started")

FAILED_STEP = ("error", "timeout", "denied")


def _values(enum: type[StrEnum]) -> tuple[str, ...]:
    return tuple(member.value for member in enum)


def _is(name: str, type_: Type, what: str, hint: str, **more: object) -> Field:
    """A field that reads “what is 3” and “what is not 3”."""
    says, denies = f"{what} is {{}}", f"{what} is not {{}}"
    return Field(name=name, type=type_, **{"says": says, "denies": denies, "hint": hint, **more})  # type: ignore[arg-type]


def _are(name: str, what: str, hint: str, **more: object) -> Field:
    says, denies = f"{what} are {{}}", f"{what} are not {{}}"
    return Field(name=name, type=Type.COUNT, says=says, denies=denies, hint=hint, **more)  # type: ignore[arg-type]


def _a_step(name: str, type_: Type, what: str, hint: str, **more: object) -> Field:
    """A field that some step of the run must have."""
    says, denies = f"a step {what}", f"no step {what}"
    return Field(name=name, type=type_, **{"says": says, "denies": denies, "hint": hint, "of_step": True, **more})  # type: ignore[arg-type]


def _text(name: str) -> Field:
    says, denies = f"some {name} mentions {{}}", f"no {name} mentions {{}}"
    return Field(name=name, type=Type.TEXT, says=says, denies=denies, hint="words", of_step=True)


_NOTES = (
    Field(
        name="note",
        type=Type.TEXT,
        says="a person's note mentions {}",
        denies="no person's note mentions {}",
        hint="words of a note",
        of_note=True,
    ),
    Field(
        name="human_score",
        type=Type.SCORE,
        says="a person's score is {}",
        denies="no person's score is {}",
        hint="<0.6",
        of_note=True,
    ),
    Field(
        name="noted_by",
        type=Type.NAME,
        says="noted by {}",
        denies="not noted by {}",
        hint="name, username or e-mail",
        of_note=True,
    ),
)
"""On the run as a whole or on any of its steps; within `step:{…}` on that step."""

_STATUS_WORDS = (
    ("done", "completed"),
    ("success", "completed"),
    ("succeeded", "completed"),
    ("ok", "completed"),
    ("error", "failed"),
    ("needs_approval", "waiting"),
    ("live", "running"),
    ("canceled", "cancelled"),
    ("dry_run", "dry_run_ready"),
)
_STOP_WORDS = (
    ("loop_guard", "loop"),
    ("budget", "max_cost"),
    ("cost", "max_cost"),
    ("cost_budget", "max_cost"),
    ("steps", "max_steps"),
    ("tokens", "max_tokens"),
    ("timeout", "max_seconds"),
    ("canceled", "cancelled"),
)
_KINDS = {
    "choices": _values(StepKind),
    "synonyms": (("evaluation", "evaluate"), ("subagent", "delegate")),
    "called": "kind of step",
}
_APPROVAL = {"choices": tuple(APPROVALS), "called": "state of an approval"}
_TOKEN_KINDS = ("input_tokens", "output_tokens", "cache_read", "cache_write")
_TOKEN_FIELDS = tuple(
    _are(name, f"the {name.replace('_', ' ').removesuffix(' tokens')} tokens", ">10k") for name in _TOKEN_KINDS
)
_RUN_FIELDS = (
    _is("agent", Type.NAME, "the agent", "name or slug"),
    _is(
        "status",
        Type.CHOICE,
        "the status",
        "how the run stands",
        choices=_values(RunStatus),
        synonyms=_STATUS_WORDS,
    ),
    _is(
        "stop",
        Type.CHOICE,
        "the stop reason",
        "why it ended",
        choices=_values(StopReason),
        synonyms=_STOP_WORDS,
        called="stop reason",
    ),
    _a_step("tool", Type.NAME, "used {}", "shop.issue_refund, shop.*"),
    _a_step("model", Type.NAME, "used the model {}", "claude-sonnet-*"),
    Field(
        name="user", type=Type.NAME, says="started by {}", denies="not started by {}", hint="name, username or e-mail"
    ),
    _is("type", Type.NAME, "the task type", "task type"),
    Field(
        name="task", type=Type.TEXT, says="the task mentions {}", denies="the task does not mention {}", hint="words"
    ),
    Field(
        name="plan", type=Type.TEXT, says="the plan mentions {}", denies="the plan does not mention {}", hint="words"
    ),
    _text("reasoning"),
    _text("output"),
    _text("input"),
    _text("error"),
    _is("mode", Type.CHOICE, "the mode", "how it asks", choices=_values(Mode), synonyms=(("dry-run", "dry_run"),)),
    _is("version", Type.COUNT, "the agent's version", "14, >12"),
    _is("prompt", Type.NAME, "the agent and its version", "name@14"),
    _is("cost", Type.MONEY, "the cost", ">0.50"),
    _is("budget", Type.MONEY, "the budget", ">1"),
    Field(
        name="duration",
        type=Type.DURATION,
        says="it took {}, waits included",
        denies="it did not take {}, waits included",
        hint=">30s, >10m",
    ),
    Field(
        name="wait",
        type=Type.DURATION,
        says="people were waited for {}",
        denies="people were not waited for {}",
        hint=">10m",
    ),
    _are("tokens", "the tokens", ">10k"),
    *_TOKEN_FIELDS,
    _is("cache_hit", Type.PERCENT, "the share of the prompt read from the cache", "<40%"),
    Field(
        name="cache_lost",
        type=Type.COUNT,
        says="a step's cache tokens written again because their time had run out are {}",
        denies="no step's cache tokens written again because their time had run out are {}",
        hint=">0",
        of_step=True,
    ),
    _are("steps", "the steps", ">20"),
    Field(name="score", type=Type.SCORE, says="a score is {}", denies="no score is {}", hint="<0.6", of_step=True),
    Field(
        name="eval",
        type=Type.SCORE,
        says="a score of “{key}” is {}",
        denies="no score of “{key}” is {}",
        hint="eval.NAME:<0.6",
        of_step=True,
    ),
    Field(
        name="confidence",
        type=Type.SCORE,
        says="a confidence is {}",
        denies="no confidence is {}",
        hint="<0.8",
        of_step=True,
    ),
    Field(
        name="risk",
        type=Type.LEVEL,
        says="an action's risk is {}",
        denies="no action's risk is {}",
        hint="critical, >=high",
        choices=_values(Risk),
    ),
    Field(
        name="approval",
        type=Type.CHOICE,
        says="an action that people were asked about was {}",
        denies="no action that people were asked about was {}",
        hint="what people decided",
        **_APPROVAL,  # type: ignore[arg-type]
    ),
    Field(
        name="approver",
        type=Type.NAME,
        says="an action was decided by {}",
        denies="no action was decided by {}",
        hint="name, username or e-mail",
    ),
    Field(
        name="action",
        type=Type.NAME,
        says="an action with {} was proposed",
        denies="no action with {} was proposed",
        hint="shop.issue_refund",
    ),
    *_NOTES,
    Field(name="since", type=Type.TIME, says="started {}", denies="not started {}", hint="14d, 2026-11-01"),
    Field(name="until", type=Type.TIME, says="started {}", denies="not started {}", hint="1d, 2026-11-07"),
    Field(name="started", type=Type.TIME, says="started {}", denies="not started {}", hint="today, >-24h"),
    Field(
        name="kind",
        type=Type.CHOICE,
        says="there is a step of kind {}",
        denies="there is no step of kind {}",
        hint="kind of step",
        of_step=True,
        **_KINDS,  # type: ignore[arg-type]
    ),
    _a_step("price", Type.NAME, "was priced by {}", "genai-prices/*"),
    _is("run", Type.RUN, "the run", "R-1840"),
    _is("parent", Type.RUN, "the run it was delegated by", "R-1840"),
    _is("fork", Type.RUN, "the run it was forked from", "R-1840"),
    Field(
        name="like",
        type=Type.RUN,
        says="agent and task type are those of {}",
        denies="agent and task type are not those of {}",
        hint="R-1840",
    ),
    Field(
        name="batch", type=Type.ID, says="it asked in the batch {}", denies="it did not ask in the batch {}", hint="id"
    ),
    _is("team", Type.NAME, "the team", "name"),
    _is("tag", Type.NAME, "a tag", "metadata tag or tags"),
    _is("meta", Type.NAME, "the metadata “{key}”", "meta.customer:ana, meta.items:>5"),
    Field(
        name="has",
        type=Type.CHOICE,
        says="it has {}",
        denies="it does not have {}",
        hint="error, rejection, wait",
        choices=tuple(HAS),
        synonyms=(("errors", "error"), ("rejections", "rejection"), ("waiting", "wait"), ("evaluation", "score")),
        called="thing a run can have",
    ),
    Field(
        name="is",
        type=Type.CHOICE,
        says="it {}",
        denies="not true that it {}",
        hint="live, waiting, over_budget",
        choices=tuple(IS),
        synonyms=(("running", "live"), ("done", "ended"), ("loop", "looping"), ("fork", "forked")),
        called="state of a run",
    ),
)

_STEP_FIELDS = (
    _is("tool", Type.NAME, "the tool", "shop.issue_refund, shop.*"),
    _is("kind", Type.CHOICE, "the kind", "kind of step", **_KINDS),
    _is(
        "status",
        Type.CHOICE,
        "the status",
        "how it ended",
        choices=("failed", *_values(StepStatus)),
        synonyms=(("success", "ok"), ("succeeded", "ok"), ("completed", "ok"), ("timed_out", "timeout")),
        called="status of a step",
    ),
    _is("model", Type.NAME, "the model", "claude-sonnet-*"),
    *(
        Field(
            name=name,
            type=Type.TEXT,
            says=f"the {name} mentions {{}}",
            denies=f"the {name} does not mention {{}}",
            hint="words",
        )
        for name in ("reasoning", "output", "input", "error")
    ),
    _is("cost", Type.MONEY, "the cost", ">0.05"),
    Field(name="duration", type=Type.DURATION, says="it took {}", denies="it did not take {}", hint=">30s"),
    _are("tokens", "the tokens", ">10k"),
    *_TOKEN_FIELDS,
    _are("cache_lost", "the cache tokens written again because their time had run out", ">0"),
    _is("score", Type.SCORE, "the score", "<0.6"),
    _is("eval", Type.SCORE, "the score of “{key}”", "eval.NAME:<0.6"),
    _is("confidence", Type.SCORE, "the confidence", "<0.8"),
    _is("attempt", Type.COUNT, "the attempt", ">1"),
    _is("risk", Type.LEVEL, "the action's risk", "critical, >=high", choices=_values(Risk)),
    _is("approval", Type.CHOICE, "the approval", "what people decided", **_APPROVAL),
    Field(name="approver", type=Type.NAME, says="decided by {}", denies="not decided by {}", hint="name"),
    *_NOTES,
    _is("price", Type.NAME, "the price", "genai-prices/*"),
    _is("number", Type.COUNT, "its number", "3, <10"),
    Field(name="since", type=Type.TIME, says="it began {}", denies="it did not begin {}", hint="14d, 2026-11-01"),
    Field(name="until", type=Type.TIME, says="it began {}", denies="it did not begin {}", hint="1d, 2026-11-07"),
    Field(name="started", type=Type.TIME, says="it began {}", denies="it did not begin {}", hint="today, >-24h"),
    Field(
        name="is",
        type=Type.CHOICE,
        says="it is {}",
        denies="it is not {}",
        hint="refused",
        choices=tuple(STEP_IS),
        synonyms=(("rejected", "refused"),),
        called="thing a step can be",
    ),
    Field(
        name="has",
        type=Type.CHOICE,
        says="it has {}",
        denies="it does not have {}",
        hint="error, reasoning",
        choices=tuple(STEP_HAS),
        called="thing a step can have",
    ),
)

FIELDS = {field.name: field for field in _RUN_FIELDS}
STEP_FIELDS = {field.name: field for field in _STEP_FIELDS}
ALIASES = {
    "latency": "duration",
    "level": "status",
    "state": "status",
    "name": "tool",
    "total_cost": "cost",
    "category": "type",
    "task_type": "type",
    "stop_reason": "stop",
    "owner": "user",
    "after": "since",
    "before": "until",
    "trace": "run",
    "env": "tag",
    "step": "kind",
    "notes": "note",
    "annotation": "note",
    "comment": "note",
    "feedback": "human_score",
}
STEP_ALIASES = {**ALIASES, "seq": "number"}
GROUPS = ("agent", "status", "stop", "type", "user", "mode", "version", "prompt", "tool", "model", "day", "week")
"""What found runs are grouped by; a run with several tools or models counts for each."""
KEYED = ("meta", "eval")
"""Fields that are written with a name behind a dot; without one `eval` is the score."""


def known(name: str, *, in_step: bool) -> Field | None:
    """The field of a written name, in either place; None when there is none."""
    name = name.lower()
    fields, aliases = (STEP_FIELDS, STEP_ALIASES) if in_step else (FIELDS, ALIASES)
    head, _, key = name.partition(".")
    if head == "run" and key and not in_step:
        field = known(key, in_step=False)
        return field if field and not field.of_step else None
    if head in KEYED and head in fields:
        if head == "eval" and not key:
            return fields["score"]
        field = fields[head]
        says, denies = (text.replace("{key}", key) for text in (field.says, field.denies))
        return replace(field, key=key, says=says, denies=denies) if key else None
    return fields.get(aliases.get(name, name))
