"""The inbox: what waits for a person, what was decided, and `decide`, the only way in for a verdict.

A decision is rows first, doorbells after the commit. It holds the run's row, so that decisions of one run, its expiry
and its worker's parking happen one after another; `lifecycle` changes each status by a conditional UPDATE besides.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Prefetch, Q, QuerySet
from django.utils import timezone

from accounts.access import Access, Right, get, rows, still_may
from accounts.models import Team, User
from approvals import circle, columns, duties, editing, evidence, seen, viewing
from approvals.models import GRANT_CHANNEL, REASON_WORDS, Decision, HandOver, Reason, Verdict
from runs import audit, doorbell, excerpts, lifecycle, live, previews, timing
from runs.engine.ports import InvalidArguments
from runs.engine.types import WAITING_ACTIONS, ActionStatus, Execution, JsonObject
from runs.models import Action, Batch, Run
from runs.verdicts import digest_of

NOTE_LENGTH = 4000
REPLACED = Q(status=ActionStatus.SUPERSEDED) | Q(status=ActionStatus.REVOKED, superseded_by__isnull=False)
FITTING = {
    "action": (Verdict.APPROVE, Verdict.REJECT, Verdict.EDIT),
    "question": (Verdict.ANSWER, Verdict.REJECT),
    "unknown": (Verdict.HAPPENED, Verdict.DID_NOT_HAPPEN),
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


# --- reading ---------------------------------------------------------------------------------------------------------


def batches(access: Access, show: str = "pending", *, rows_only: bool = False) -> QuerySet[Batch]:
    """`pending` soonest expiry first, `decided` newest first, or `all`. A constant number of queries when read."""
    found = (with_rows if rows_only else with_actions)(rows(access, Batch))
    if show == "decided":
        return found.filter(status="closed").order_by("-closed_at", "-id")
    if show == "all":
        return found.order_by("-created_at", "-id")
    return found.filter(status="open").order_by("expires_at", "id")


def with_actions(found: QuerySet[Batch], some: Q | None = None) -> QuerySet[Batch]:
    """Each batch with all a page shows of it: run, agent, actions as they stand now, and their decisions."""
    current = with_decisions(Action.objects.filter(some or Q()).select_related("decided_by"))
    actions = Prefetch("actions", current.order_by("position", "created_at"))
    return found.select_related("run__agent", "run__agent_version", "run__owner", "extended_by").prefetch_related(
        actions, "rungs", "asked", Prefetch("hand_overs", HandOver.objects.select_related("by", "to"))
    )


def with_decisions(found: QuerySet[Action]) -> QuerySet[Action]:
    """Those that stand now, each with what was decided on it and on the one it replaced."""
    said = [Prefetch(path, Decision.objects.select_related("actor")) for path in ("decisions", "supersedes__decisions")]
    return found.exclude(REPLACED).select_related("supersedes").prefetch_related(*said)


def with_rows(found: QuerySet[Batch]) -> QuerySet[Batch]:
    """Each batch with what its row in a list shows: columns, no payload."""
    decisions = Prefetch("decisions", Decision.objects.select_related("actor"))
    current = Action.objects.exclude(REPLACED).only(*columns.ROW_OF_ACTION).order_by("position", "created_at")
    actions = Prefetch("actions", current.prefetch_related(decisions))
    run = found.select_related("run__agent", "run__agent_version").only(*columns.ROW_OF_BATCH)
    return run.prefetch_related(actions, "asked")


def for_me(access: Access) -> QuerySet[Batch]:
    """Open batches in which something waits for this very person, and is not barred to them."""
    mine = Decision.objects.filter(action=OuterRef("pk"), actor=access.user, verdict=Verdict.APPROVE)
    waiting = Action.objects.filter(batch=OuterRef("pk"), status__in=list(WAITING_ACTIONS)).exclude(Exists(mine))
    others = Batch.asked.through.objects.filter(batch_id=OuterRef("pk"))
    asked = ~Exists(others) | Exists(others.filter(user_id=access.user.id))
    return rows(access, Batch).filter(asked, Exists(waiting.exclude(duties.barred(access))), status="open")


def open_count(access: Access) -> int:
    """The number beside Approvals in the frame: open batches this person can act on."""
    return for_me(access).count() if access.may(Right.DECIDE) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    approved: int
    edited: int
    rejected: int
    median_minutes: int | None


def today(access: Access, since: dt.datetime) -> Today:
    """The team's decisions since a moment; half of the decided actions waited at most the median."""
    said = list(
        rows(access, Decision)
        .filter(at__gte=since)
        .exclude(channel=GRANT_CHANNEL)
        .values_list("verdict", "action_id", "at", "action__created_at")
    )
    counts = Counter(verdict for verdict, *_ in said)
    waits = sorted((at - created).total_seconds() for verdict, _, at, created in said if verdict != Verdict.EDIT)
    return Today(
        approved=len({action for verdict, action, *_ in said if verdict == Verdict.APPROVE}),
        edited=counts[Verdict.EDIT],
        rejected=counts[Verdict.REJECT],
        median_minutes=max(1, round(waits[(len(waits) - 1) // 2] / 60)) if waits else None,
    )


def decided_since(access: Access, since: dt.datetime, limit: int) -> list[Decision]:
    """The newest decisions, with what they were about."""
    found = rows(access, Decision).filter(at__gte=since).exclude(verdict=Verdict.EDIT).exclude(channel=GRANT_CHANNEL)
    return list(found.select_related("actor", "action").order_by("-at", "-id")[:limit])


# --- deciding --------------------------------------------------------------------------------------------------------


def decide(
    access: Access,
    batch_id: uuid.UUID | str,
    version: int,
    lines: Sequence[Line],
    *,
    channel: str,
    execution: Execution | None = None,
    from_list: bool = False,
) -> list[Outcome]:
    """One outcome a line, in their order; lines that do not apply never keep the others from applying. `execution` says
    what a failure means for the rest of the batch; the last approval that names one counts. `from_list`: from a page
    that shows no cards, so that whatever must be seen has to have been opened.

    `version` is the batch's as it was shown. An older one does no harm by itself: a line is refused when its own action
    is not what was shown. Raises Http404 for another team's batch and MissingRight without the right to decide.
    """
    batch = get(access, Batch, batch_id, right=Right.DECIDE)
    with transaction.atomic():
        deciding = _Deciding(access, batch, version, channel, execution)
        deciding.from_list = from_list
        outcomes = deciding.all(lines)
        if deciding.changed:
            deciding.store_execution()
            circle.ask_the_others(access.team.id, batch)
            settle_batch(batch)
    return outcomes


def settle_batch(batch: Batch) -> None:
    """After actions of it changed: raises its version, closes it and wakes its run when nothing waits any more."""
    Batch.objects.filter(id=batch.id).update(version=F("version") + 1)
    closed = lifecycle.close_batch(batch.id)
    if closed:
        lifecycle.wake(batch.run_id)
    run = Run.objects.only("team_id", "last_seq", "due_at").get(id=batch.run_id)
    transaction.on_commit(lambda: _ring(run, closed), robust=True)


def _ring(run: Run, closed: bool) -> None:
    if closed and run.due_at is None:  # else the sweeper rings in time
        doorbell.ring(run.id)
    live.ring(run.id, run.last_seq)
    live.ring_inbox(run.team_id)


class _Deciding:
    """The lines of one request, within one transaction that holds the run."""

    def __init__(
        self, access: Access, batch: Batch, version: int, channel: str, execution: Execution | None = None
    ) -> None:
        run = Run.objects.select_for_update(of=("self",), no_key=True).select_related("agent", "agent_version")
        self.run = run.get(id=batch.run_id)
        self.now = timezone.now()
        self.access = access
        self.channel = channel
        self.version = version
        self.current_version = Batch.objects.values_list("version", flat=True).get(id=batch.id)
        # Asked again under the lock: the right may have gone since the page was shown.
        self.may = access.may(Right.DECIDE) and still_may(access.user.id, access.team.id, Right.DECIDE)
        found = Action.objects.filter(batch=batch).select_related("decided_by", "superseded_by")
        self.actions = {action.id: action for action in found.prefetch_related("decisions__actor")}
        self.changed = False
        self.viewed_at = viewing.first_seen(batch, access.user) if channel == "web" else None
        self.together = 1
        self.team = Team.objects.get(id=access.team.id)
        self.batch = batch
        self.execution = execution
        self.cannot_undo = ""
        self.from_list = False
        self.seen = seen.seen_by(access, self.actions) if channel == "web" else set()

    def store_execution(self) -> None:
        if self.execution is not None:
            Batch.objects.filter(id=self.batch.id).update(execution=self.execution)

    def all(self, lines: Sequence[Line]) -> list[Outcome]:
        times = Counter(line.action for line in lines)
        self.together = len(lines)
        self.cannot_undo = self._cannot_undo(lines)
        return [
            self._invalid(line, "This action is listed more than once.") if times[line.action] > 1 else self._one(line)
            for line in lines
        ]

    def _one(self, line: Line) -> Outcome:
        action = self.actions.get(line.action)
        if action is None:
            return self._invalid(line, "This batch has no such action.")
        if not self.may:
            return _outcome(action, Result.FORBIDDEN, "You no longer have the right to decide on actions.")
        if self.version > self.current_version:
            return self._invalid(line, f"This batch has no version {self.version}; it is at {self.current_version}.")
        return self._stale(line, action) or self._settled(action) or self._verdict(line, action)

    def _must_have_seen(self, action: Action) -> bool:
        preview = previews.present(action)
        return excerpts.must_see(action, preview) if self.from_list else preview.is_long

    def _cannot_undo(self, lines: Sequence[Line]) -> str:
        """Why the batch can't be all or nothing: the first action that would run and that nobody could take back."""
        if self.execution is not Execution.ALL_OR_NOTHING:
            return ""
        approved = {line.action for line in lines if line.verdict is Verdict.APPROVE}
        would_run = [a for a in self.actions.values() if a.id in approved or a.status == ActionStatus.APPROVED]
        final = next((action for action in would_run if action.irreversible), None)
        return f"All or nothing is not possible: “{final.title}” can't be undone." if final else ""

    def _stale(self, line: Line, action: Action) -> Outcome | None:
        new = getattr(action, "superseded_by", None)
        if action.status == ActionStatus.SUPERSEDED or (action.status == ActionStatus.REVOKED and new):
            who = action.decided_by.label if action.decided_by else "Somebody"
            did = "changed this action" if action.status == ActionStatus.SUPERSEDED else "took the approval back"
            return _outcome(
                action,
                Result.STALE,
                f"{who} {did}; look at it as it is now.",
                by=action.decided_by,
                at=action.decided_at,
                superseded_by=new.id if new else None,
            )
        if line.digest != action.digest:
            return _outcome(action, Result.STALE, "This action is not the one that was shown; look at it as it is now.")
        if action.status == ActionStatus.STALE:
            return _outcome(action, Result.STALE, action.note or "What this action stood on has changed.")
        return None

    def _settled(self, action: Action) -> Outcome | None:
        """What is said of an action that waits for nobody; one whose time is over is closed on the spot."""
        if action.status == ActionStatus.PENDING and action.expires_at and action.expires_at <= self.now:
            if lifecycle.expire(action.id):
                self.changed = True
                expiry_receipt(action)
            return _outcome(action, Result.EXPIRED, "The time to decide was over, so nothing runs.")
        if action.status in WAITING_ACTIONS:
            return None
        if action.status == ActionStatus.EXPIRED:
            return _outcome(action, Result.EXPIRED, "The time to decide was over, so nothing runs.")
        if action.decided_by is None:
            detail = action.note or f"This action does not wait for a person: it is {action.status}."
            return _outcome(action, Result.ALREADY_DECIDED, detail, at=action.decided_at)
        return self._was_decided(action, action.decided_by)

    def _was_decided(self, action: Action, by: User) -> Outcome:
        said = [decision for decision in action.decisions.all() if decision.verdict != Verdict.EDIT]
        word = PAST[Verdict(said[-1].verdict)] if said else "decided"
        detail = f"{by.label} {word} this already."
        return _outcome(action, Result.ALREADY_DECIDED, detail, by=by, at=action.decided_at)

    def _verdict(self, line: Line, action: Action) -> Outcome:
        problem = _misfit(line, action)
        if problem:
            return self._invalid(line, problem)
        action.run = self.run
        if line.verdict in (Verdict.APPROVE, Verdict.EDIT) and audit.is_contradicted(action):
            return self._invalid(line, "This is not what was proposed: somebody changed it in the database.")
        match line.verdict:
            case Verdict.APPROVE:
                return self._approve(line, action)
            case Verdict.EDIT:
                return self._edit(line, action)
            case Verdict.REJECT:
                moved = self._move(line, action, ActionStatus.REJECTED, note_of(line))
            case Verdict.ANSWER:
                return self._answer(line, action)
            case Verdict.HAPPENED | Verdict.DID_NOT_HAPPEN:
                happened = line.verdict is Verdict.HAPPENED
                moved = lifecycle.settle_unknown(
                    action.id, action.digest, happened=happened, by=self.access.user, note=line.note, at=self.now
                )
        return self._applied(line, action, PAST[line.verdict]) if moved else self._overtaken(action)

    def _approve(self, line: Line, action: Action) -> Outcome:
        if barred := duties.bar(self.access, self.run, action, self.team):
            return _outcome(action, Result.FORBIDDEN, barred)
        if self.cannot_undo:
            return self._invalid(line, self.cannot_undo)
        if self.channel == "web" and seen.not_seen(action, self.seen) and self._must_have_seen(action):
            return self._invalid(line, f"Look at all of it before you approve it: {excerpts.size_of(action)}.")
        if line.args is not None and line.args != action.args:
            return self._approve_edited(line, action)
        if digest_of(action) != action.digest:
            return self._invalid(line, "The stored arguments are not what the digest was made of, so nothing can run.")
        votes = [decision for decision in action.decisions.all() if decision.verdict == Verdict.APPROVE]
        own = next((vote for vote in votes if vote.actor_id == self.access.user.id), None)
        if own is not None:
            detail = f"Your approval counts already; {action.needed} different people are needed."
            return _outcome(action, Result.ALREADY_DECIDED, detail, by=self.access.user, at=own.at)
        people = [*duties.who_still_may([vote.actor_id for vote in votes], self.team), str(self.access.user.id)]
        if len(people) < action.needed:
            counted = self._applied(line, action, f"approved, {len(people)} of {action.needed}")
            return replace(counted, counts_only=True)
        if self._move(line, action, ActionStatus.APPROVED, note_of(line), people):
            return self._applied(line, action, PAST[Verdict.APPROVE])
        return self._overtaken(action)

    def _answer(self, line: Line, action: Action) -> Outcome:
        """A text, or a corrected call, or both. The call is no approval: it is routed like any other."""
        try:
            editing.check_answer(action, line.args)
        except InvalidArguments as invalid:
            return self._invalid(line, str(invalid), errors=invalid.errors)
        given = None if line.args is None else {"args": line.args}
        if self._move(line, action, ActionStatus.ANSWERED, line.answer.strip(), result=given):
            return self._applied(line, action, PAST[line.verdict])
        return self._overtaken(action)

    def _approve_edited(self, line: Line, action: Action) -> Outcome:
        outcome = self._edit(line, action)
        if outcome.superseded_by is None:
            return outcome
        new = Action.objects.get(id=outcome.superseded_by)
        approval = self._approve(Line(action=new.id, digest=new.digest, verdict=Verdict.APPROVE, note=line.note), new)
        detail = f"Changed, then {approval.detail[:1].lower()}{approval.detail[1:]}"
        return replace(approval, action=action.id, detail=detail, superseded_by=new.id)

    def _edit(self, line: Line, action: Action) -> Outcome:
        if action.status != ActionStatus.PENDING:
            return self._invalid(line, "Only an action that waits for approval can be changed.")
        try:
            edit = editing.prepare(action, line.args or {})
        except InvalidArguments as invalid:
            return self._invalid(line, str(invalid), errors=invalid.errors)
        new = editing.supersede(action, edit, self.access.user, self.now)
        if new is None:
            return self._overtaken(action)
        edited = Line(action=action.id, digest=action.digest, verdict=Verdict.EDIT, note=line.note)
        return self._applied(edited, action, "changed", superseded_by=new.id)

    def _move(
        self,
        line: Line,
        action: Action,
        status: ActionStatus,
        note: str,
        people: list[str] | None = None,
        result: JsonObject | None = None,
    ) -> bool:
        begins = timing.starts_at(self.run, action, self.now) if status is ActionStatus.APPROVED else None
        return lifecycle.decide(
            action.id,
            line.digest,
            status,
            by=self.access.user,
            note=note,
            released_by=people or [],
            starts_at=begins,
            at=self.now,
            result=result,
        )

    def _applied(self, line: Line, action: Action, word: str, superseded_by: uuid.UUID | None = None) -> Outcome:
        decision = Decision.objects.create(
            action=action,
            actor=self.access.user,
            verdict=line.verdict,
            reason=line.reason,
            note=line.answer.strip() if line.verdict is Verdict.ANSWER else line.note.strip(),
            shown_digest=line.digest,
            shown_version=self.version,
            channel=self.channel,
            at=self.now,
            viewed_at=self.viewed_at,
            opened_details=line.opened_details,
            decided_together=self.together,
        )
        evidence.record_decision(decision, superseded_by)
        self.changed = True
        detail = word[:1].upper() + word[1:]
        return _outcome(action, Result.APPLIED, detail, by=self.access.user, at=self.now, superseded_by=superseded_by)

    def _overtaken(self, action: Action) -> Outcome:
        """The conditional UPDATE met another status than was read a moment ago: say what it is now."""
        fresh = Action.objects.select_related("decided_by").prefetch_related("decisions").get(id=action.id)
        return self._settled(fresh) or _outcome(action, Result.EXPIRED, "The time to decide was over, so nothing runs.")

    def _invalid(self, line: Line, detail: str, errors: tuple[tuple[str, str], ...] = ()) -> Outcome:
        return Outcome(action=line.action, result=Result.INVALID, detail=detail, errors=errors)


# --- helpers ---------------------------------------------------------------------------------------------------------

PAST = {
    Verdict.APPROVE: "approved",
    Verdict.REJECT: "rejected",
    Verdict.ANSWER: "answered",
    Verdict.EDIT: "changed",
    Verdict.REVOKE: "took back",
    Verdict.HAPPENED: "settled as happened",
    Verdict.DID_NOT_HAPPEN: "settled as not happened",
}


def note_of(line: Line) -> str:
    """What the agent reads: the reason's words, then the person's own."""
    words = REASON_WORDS.get(Reason(line.reason), "") if line.reason and line.reason != Reason.OTHER else ""
    return ". ".join(part for part in (words, line.note.strip()) if part)


def expiry_receipt(action: Action) -> None:
    audit.record(action, "action.expired", "the clock", batch=str(action.batch_id))


def _outcome(
    action: Action,
    result: Result,
    detail: str,
    *,
    by: User | None = None,
    at: dt.datetime | None = None,
    superseded_by: uuid.UUID | None = None,
) -> Outcome:
    return Outcome(action=action.id, result=result, detail=detail, by=by, at=at, superseded_by=superseded_by)


def _misfit(line: Line, action: Action) -> str:
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


NOUNS = {"action": "an action", "question": "a question", "unknown": "an action whose outcome is unknown"}
