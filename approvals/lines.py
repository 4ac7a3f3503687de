"""A verdict on an action as it is given, and what is answered to it."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from accounts.models import User
from approvals.models import REASON_WORDS, Reason, Verdict
from runs.engine.types import JsonObject
from runs.models import Action

NOTE_LENGTH = 4000
FITTING = {
    "action": (Verdict.APPROVE, Verdict.REJECT, Verdict.EDIT),
    "question": (Verdict.ANSWER, Verdict.REJECT),
    "unknown": (Verdict.HAPPENED, Verdict.DID_NOT_HAPPEN),
}
NOUNS = {"action": "an action", "question": "a question", "unknown": "an action whose outcome is unknown"}
PAST = {
    Verdict.APPROVE: "approved",
    Verdict.REJECT: "rejected",
    Verdict.ANSWER: "answered",
    Verdict.EDIT: "changed",
    Verdict.REVOKE: "took back",
    Verdict.HAPPENED: "settled as happened",
    Verdict.DID_NOT_HAPPEN: "settled as not happened",
}


class Result(StrEnum):
    APPLIED = "applied"
    ALREADY_DECIDED = "already_decided"
    STALE = "stale"
    FORBIDDEN = "forbidden"
    EXPIRED = "expired"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One verdict on one action, as it was shown. `args` with an approval means: edited, and approved as edited; with
    an answer: the call that was asked about, corrected."""

    action: uuid.UUID
    digest: str
    verdict: Verdict
    args: JsonObject | None = None
    note: str = ""
    reason: str = ""
    answer: str = ""
    opened_details: bool | None = None  # not known without scripts


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a line. `by` and `at` name the decision that stands; `errors` the fields of a refused edit.

    `counts_only`: applied, and more people are needed before the action is released.
    """

    action: uuid.UUID
    result: Result
    detail: str
    by: User | None = None
    at: dt.datetime | None = None
    superseded_by: uuid.UUID | None = None
    counts_only: bool = False
    errors: tuple[tuple[str, str], ...] = field(default=())


def note_of(line: Line) -> str:
    """What the agent reads: the reason's words, then the person's own."""
    words = REASON_WORDS.get(Reason(line.reason), "") if line.reason and line.reason != Reason.OTHER else ""
    return ". ".join(part for part in (words, line.note.strip()) if part)


def outcome(
    action: Action, result: Result, detail: str, *, by: User | None = None, at: dt.datetime | None = None
) -> Outcome:
    return Outcome(action=action.id, result=result, detail=detail, by=by, at=at)


def invalid(line: Line, detail: str, errors: Iterable[tuple[str, str]] = ()) -> Outcome:
    return Outcome(action=line.action, result=Result.INVALID, detail=detail, errors=tuple(errors))


def misfit(line: Line, action: Action) -> str:
    """Why this verdict can't be given on this action; empty when it can."""
    if line.verdict not in FITTING[action.kind]:
        fitting = " or ".join(FITTING[action.kind][:2])
        return f"“{line.verdict}” does not fit: this is {NOUNS[action.kind]}; it takes {fitting}."
    if line.args is not None and line.verdict not in (Verdict.APPROVE, Verdict.EDIT, Verdict.ANSWER):
        return "Changed arguments can only come with an approval or an answer."
    if line.verdict is Verdict.ANSWER and not line.answer.strip() and line.args is None:
        return "An answer needs a text."
    if "\0" in line.note + line.answer:
        return "A note can't contain the character NUL."
    if max(len(line.note), len(line.answer)) > NOTE_LENGTH:
        return f"A note has at most {NOTE_LENGTH:,} characters."
    if line.reason and line.reason not in {reason.value for reason in Reason}:
        return "This reason is not on the list."
    return ""
