"""The fields of the query language, how their values are read, and the words they are printed in."""

from __future__ import annotations

import datetime as dt
import difflib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from runs.engine.types import Mode, Risk, RunStatus, StepKind, StopReason


class Type(StrEnum):
    CHOICE = "choice"  # one of a closed list: a typo is refused
    LEVEL = "level"  # a closed list with an order
    NAME = "name"  # compared whole, whatever the case; * stands for anything
    TEXT = "text"  # contained
    MONEY = "money"
    DURATION = "duration"  # milliseconds
    COUNT = "count"
    SCORE = "score"
    TIME = "time"
    RUN = "run"  # number or id


ORDERED = frozenset({Type.LEVEL, Type.MONEY, Type.DURATION, Type.COUNT, Type.SCORE, Type.TIME})


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`says` and `denies` are the reading's clause, with `{}` for the comparison in words."""

    name: str
    type: Type
    says: str
    denies: str
    hint: str
    choices: tuple[str, ...] = ()
    synonyms: tuple[tuple[str, str], ...] = ()


HAS = {
    "error": "a step that failed",
    "timeout": "a step that timed out",
    "rejection": "an action that a person rejected",
    "approval": "actions that people were asked about",
    "guardrail": "a guardrail that acted",
    "wait": "a wait for a person",
    "unpriced": "a step without a price",
    "score": "a score",
    "plan": "a plan",
    "subagent": "a sub-agent",
    "fork": "a run it was forked from",
    "result": "a result",
    "simulated": "the simulated model",
}


def _values(enum: type[StrEnum]) -> tuple[str, ...]:
    return tuple(member.value for member in enum)


_FIELDS = (
    Field(name="agent", type=Type.NAME, says="the agent is {}", denies="the agent is not {}", hint="name or slug"),
    Field(
        name="status",
        type=Type.CHOICE,
        says="the status is {}",
        denies="the status is not {}",
        hint="how the run stands",
        choices=_values(RunStatus),
        synonyms=(
            ("done", "completed"),
            ("success", "completed"),
            ("succeeded", "completed"),
            ("ok", "completed"),
            ("error", "failed"),
            ("needs_approval", "waiting"),
            ("live", "running"),
            ("canceled", "cancelled"),
            ("dry_run", "dry_run_ready"),
        ),
    ),
    Field(
        name="stop",
        type=Type.CHOICE,
        says="the stop reason is {}",
        denies="the stop reason is not {}",
        hint="why it ended",
        choices=_values(StopReason),
        synonyms=(
            ("loop_guard", "loop"),
            ("budget", "max_cost"),
            ("cost", "max_cost"),
            ("cost_budget", "max_cost"),
            ("steps", "max_steps"),
            ("tokens", "max_tokens"),
            ("timeout", "max_seconds"),
            ("canceled", "cancelled"),
        ),
    ),
    Field(
        name="tool", type=Type.NAME, says="a step used {}", denies="no step used {}", hint="shop.issue_refund, shop.*"
    ),
    Field(
        name="model",
        type=Type.NAME,
        says="a step used the model {}",
        denies="no step used the model {}",
        hint="claude-sonnet-*",
    ),
    Field(
        name="user", type=Type.NAME, says="started by {}", denies="not started by {}", hint="name, username or e-mail"
    ),
    Field(name="type", type=Type.NAME, says="the task type is {}", denies="the task type is not {}", hint="task type"),
    Field(
        name="task", type=Type.TEXT, says="the task mentions {}", denies="the task does not mention {}", hint="words"
    ),
    Field(
        name="mode",
        type=Type.CHOICE,
        says="the mode is {}",
        denies="the mode is not {}",
        hint="how it asks",
        choices=_values(Mode),
        synonyms=(("dry-run", "dry_run"),),
    ),
    Field(
        name="version",
        type=Type.COUNT,
        says="the agent's version is {}",
        denies="the agent's version is not {}",
        hint="14, >12",
    ),
    Field(name="cost", type=Type.MONEY, says="the cost is {}", denies="the cost is not {}", hint=">0.50"),
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
    Field(name="tokens", type=Type.COUNT, says="the tokens are {}", denies="the tokens are not {}", hint=">10k"),
    Field(name="steps", type=Type.COUNT, says="the steps are {}", denies="the steps are not {}", hint=">20"),
    Field(name="score", type=Type.SCORE, says="a score is {}", denies="no score is {}", hint="<0.6"),
    Field(
        name="risk",
        type=Type.LEVEL,
        says="an action's risk is {}",
        denies="no action's risk is {}",
        hint="critical, >=high",
        choices=_values(Risk),
    ),
    Field(name="since", type=Type.TIME, says="started {}", denies="not started {}", hint="14d, 2026-11-01"),
    Field(name="until", type=Type.TIME, says="started {}", denies="not started {}", hint="1d, 2026-11-07"),
    Field(name="started", type=Type.TIME, says="started {}", denies="not started {}", hint="today, >-24h"),
    Field(
        name="kind",
        type=Type.CHOICE,
        says="there is a step of kind {}",
        denies="there is no step of kind {}",
        hint="kind of step",
        choices=_values(StepKind),
        synonyms=(("evaluation", "evaluate"), ("subagent", "delegate")),
    ),
    Field(name="run", type=Type.RUN, says="the run is {}", denies="the run is not {}", hint="R-1840"),
    Field(
        name="has",
        type=Type.CHOICE,
        says="it has {}",
        denies="it does not have {}",
        hint="error, rejection, wait",
        choices=tuple(HAS),
        synonyms=(("errors", "error"), ("rejections", "rejection"), ("waiting", "wait"), ("evaluation", "score")),
    ),
)
FIELDS = {field.name: field for field in _FIELDS}
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
    "eval": "score",
    "after": "since",
    "before": "until",
}

Value = str | Decimal | int | dt.datetime


class BadValue(ValueError):
    """A value that its field cannot take; `suggestion` replaces it."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


def did_you_mean(word: str, known: Sequence[str]) -> str | None:
    """The nearest of `known`, or None when nothing is near."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    if near:
        return near[0]
    starts = [name for name in known if word and name.startswith(word.lower())]
    return starts[0] if len(starts) == 1 else None


def read_value(field: Field, raw: str) -> Value:
    """A value other than a time. Raises BadValue."""
    if field.type in (Type.CHOICE, Type.LEVEL):
        return _choice(field, raw)
    if field.type == Type.MONEY:
        return _number(raw.removeprefix("$"), f"{field.name} takes dollars, such as 0.50", scale=9)
    if field.type == Type.SCORE:
        score = _number(raw, "score takes a number from 0 to 1, such as 0.6")
        if not 0 <= score <= 1:
            raise BadValue("score takes a number from 0 to 1, such as 0.6")
        return score
    if field.type == Type.COUNT:
        return _count(field, raw)
    if field.type == Type.DURATION:
        return _duration_ms(field, raw)
    if field.type == Type.RUN:
        return _run(raw)
    return raw


def _choice(field: Field, raw: str) -> str:
    word = raw.strip().lower().replace(" ", "_").replace("-", "_")
    word = dict(field.synonyms).get(word, word)
    if word in field.choices:
        return word
    near = did_you_mean(word, field.choices)
    hint = f"did you mean {near}?" if near else f"it is one of {', '.join(field.choices)}."
    raise BadValue(f"“{raw}” is not a {_noun(field)}: {hint}", near)


def _noun(field: Field) -> str:
    return {"stop": "stop reason", "has": "thing a run can have", "kind": "kind of step"}.get(field.name, field.name)


_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?|\.[0-9]{1,12}", re.ASCII)
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def _number(raw: str, message: str, scale: int = 6) -> Decimal:
    text = raw.replace(",", "")
    if not _NUMBER.fullmatch(text):
        raise BadValue(f"“{raw}” is not a number: {message}.")
    return Decimal(text).quantize(Decimal(1).scaleb(-scale))


def _count(field: Field, raw: str) -> int:
    match = re.fullmatch(r"([0-9.,]+)([kKmM]?)", raw, re.ASCII)
    message = f"{field.name} takes a count, such as 500 or 10k"
    if not match:
        raise BadValue(f"“{raw}” is not a number: {message}.")
    return min(int(_number(match[1], message) * _UNITS[match[2].lower()]), 2**62)


_SPAN_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SPAN = re.compile(r"(?:[0-9]{1,6}(?:\.[0-9]{1,3})?(?:ms|s|m|h|d|w))+", re.ASCII)
_SPAN_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d|w)", re.ASCII)


def span_ms(raw: str) -> int | None:
    """`90s`, `1m30s`, `14d` in milliseconds; None for anything else."""
    text = raw.lower().replace(" ", "")
    if not _SPAN.fullmatch(text):
        return None
    return int(sum(Decimal(number) * _SPAN_MS[unit] for number, unit in _SPAN_PART.findall(text)))


def _duration_ms(field: Field, raw: str) -> int:
    if (milliseconds := span_ms(raw)) is not None:
        return milliseconds
    return int(_number(raw, f"{field.name} takes a time, such as 30s, 10m or 2h") * 1000)


def _run(raw: str) -> str:
    match = re.fullmatch(r"[rR]?-?([0-9]{1,9})", raw, re.ASCII)
    if match:
        return match[1]
    try:
        return str(uuid.UUID(raw))
    except ValueError:
        raise BadValue(f"“{raw}” is not a run: write its number, such as R-1840, or its id.") from None


_FAR = dt.timedelta(days=36_500)


def read_time(field: Field, raw: str, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """(start, end) of what is named: a day for a date, one instant for anything finer. Raises BadValue."""
    text = raw.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    day = dt.timedelta(days=1)
    if text in ("now", "today", "yesterday"):
        start = {"now": now, "today": midnight, "yesterday": midnight - day}[text]
        return start, start if text == "now" else start + day
    ago = span_ms(text.removeprefix("-"))
    if ago is not None:
        moment = now - min(dt.timedelta(milliseconds=ago), _FAR)
        return moment, moment
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            start = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), now.tzinfo)
            return start, start + day
        moment = dt.datetime.fromisoformat(raw.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
        moment.astimezone(dt.UTC)
        return moment, moment
    except (ValueError, OverflowError):
        message = f"“{raw}” is not a time: {field.name} takes 14d, 24h, today or 2026-11-01."
        raise BadValue(message, _time_fix(text)) from None


def _time_fix(text: str) -> str | None:
    """`14 days` and the like, as the language writes them."""
    match = re.fullmatch(r"-?(\d{1,4})\s*(second|sec|minute|min|hour|hr|day|week)s?", text, re.ASCII)
    return f"{match[1]}{match[2][0]}" if match else None
