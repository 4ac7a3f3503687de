"""What becomes of verdicts: each line is judged by the row it is about, then all that apply are carried out together.

However many lines a request has, it makes the same few statements. The team's row, at which all receipts of a team wait
for each other, is taken last: what other people's decisions wait for is the writing of receipts, and nothing else.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from django.utils import timezone
from pydantic import JsonValue

from accounts import receipts
from accounts.access import Access, Right, holders, still_may
from accounts.models import Team
from approvals import circle, duties, editing, evidence, seen, settling, viewing
from approvals.lines import PAST, Line, Outcome, Result, invalid, misfit, note_of, outcome
from approvals.models import Decision, Verdict
from runs import audit, excerpts, lifecycle, previews, timing
from runs.engine.ports import InvalidArguments
from runs.engine.types import WAITING_ACTIONS, ActionStatus, Execution, JsonObject
from runs.models import Action, Batch, Run
from runs.verdicts import digest_of

REPLACED = (ActionStatus.SUPERSEDED, ActionStatus.REVOKED)
NOTHING_RUNS = "The time to decide was over, so nothing runs."


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as `inbox.decide` was given it."""

    access: Access
    version: int
    lines: Sequence[Line]
    channel: str
    execution: Execution | None
    from_list: bool


def answers_without_change(asked: Asked, batch: Batch) -> list[Outcome] | None:
    """One outcome a line where no line can change anything, from rows that are settled; None as soon as one could."""
    found = _Found(asked, batch, batch.version, of=TOLD)
    answers = [found.answer(line) for line in asked.lines]
    told = [answer for answer in answers if answer is not None]
    return told if len(told) == len(answers) else None


def carry_out(asked: Asked, batch: Batch) -> list[Outcome]:
    """One outcome a line, within the caller's transaction, which holds the run from here on."""
    return _Deciding(asked, batch).all()


# --- what there is ---------------------------------------------------------------------------------------------------

TOLD = (
    "digest",
    "status",
    "note",
    "decided_at",
    "decided_by__username",
    "decided_by__first_name",
    "decided_by__last_name",
)
"""What a person is told of an action that is settled."""


class _Said(NamedTuple):
    by: uuid.UUID
    verdict: str
    at: dt.datetime


class _Found:
    """The actions that the lines are about as they are now, and what is said of those that wait for nobody."""

    def __init__(self, asked: Asked, batch: Batch, version: int, of: Sequence[str] = ()) -> None:
        """`of`: the columns that are read; all when empty."""
        ids = [line.action for line in asked.lines]
        found = Action.objects.filter(batch=batch, id__in=ids).order_by().select_related("decided_by")
        self.actions = {action.id: action for action in (found.only(*of) if of else found)}
        self.said = _said_of(ids)
        self.times = Counter(ids)
        self.asked = asked
        self.version = version
        gone = [action.id for action in self.actions.values() if action.status in REPLACED]
        new = Action.objects.filter(supersedes__in=gone).values_list("supersedes", "id") if gone else ()
        self.new: dict[uuid.UUID, uuid.UUID] = {old: replacing for old, replacing in new if old is not None}

    def answer(self, line: Line, *, may: bool = True) -> Outcome | None:
        """None where the line's action waits for a verdict."""
        if self.times[line.action] > 1:
            return invalid(line, "This action is listed more than once.")
        action = self.actions.get(line.action)
        if action is None:
            return invalid(line, "This batch has no such action.")
        if not may:
            return outcome(action, Result.FORBIDDEN, "You no longer have the right to decide on actions.")
        if self.asked.version > self.version:
            return invalid(line, f"This batch has no version {self.asked.version}; it is at {self.version}.")
        return self._stale(line, action) or _settled(action, self.said[action.id])

    def _stale(self, line: Line, action: Action) -> Outcome | None:
        new = self.new.get(action.id)
        if action.status == ActionStatus.SUPERSEDED or (action.status == ActionStatus.REVOKED and new):
            who = action.decided_by.label if action.decided_by else "Somebody"
            did = "changed this action" if action.status == ActionStatus.SUPERSEDED else "took the approval back"
            detail = f"{who} {did}; look at it as it is now."
            stale = outcome(action, Result.STALE, detail, by=action.decided_by, at=action.decided_at)
            return replace(stale, superseded_by=new)
        if line.digest != action.digest:
            return outcome(action, Result.STALE, "This action is not the one that was shown; look at it as it is now.")
        if action.status == ActionStatus.STALE:
            return outcome(action, Result.STALE, action.note or "What this action stood on has changed.")
        return None


def _said_of(actions: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, list[_Said]]:
    """The decisions on each action but for edits, oldest first."""
    found = Decision.objects.filter(action__in=actions).exclude(verdict=Verdict.EDIT).order_by("at", "id")
    said: dict[uuid.UUID, list[_Said]] = defaultdict(list)
    for action, by, verdict, at in found.values_list("action_id", "actor_id", "verdict", "at"):
        said[action].append(_Said(by, verdict, at))
    return said


def _settled(action: Action, said: Sequence[_Said]) -> Outcome | None:
    """What is said of an action that waits for nobody."""
    if action.status in WAITING_ACTIONS:
        return None
    if action.status == ActionStatus.EXPIRED:
        return outcome(action, Result.EXPIRED, NOTHING_RUNS)
    by = action.decided_by
    if by is None:
        detail = action.note or f"This action does not wait for a person: it is {action.status}."
        return outcome(action, Result.ALREADY_DECIDED, detail, at=action.decided_at)
    until = action.decided_at or timezone.now()  # the two were read one after the other
    word = next((PAST[Verdict(each.verdict)] for each in reversed(said) if each.at <= until), "decided")
    return outcome(action, Result.ALREADY_DECIDED, f"{by.label} {word} this already.", by=by, at=action.decided_at)


# --- deciding --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """A line that applies. `status`: what its action becomes; None for a vote that releases nothing yet, and for an
    action whose outcome was unknown. `word`: what happened to it."""

    line: Line
    action: Action
    word: str
    status: ActionStatus | None
    note: str = ""
    people: tuple[str, ...] = ()
    begins: dt.datetime | None = None
    result: JsonObject | None = None
    again: bool = False  # the person's own decision stands already


_Change = tuple[ActionStatus, str, tuple[str, ...], dt.datetime | None, uuid.UUID | None]
"""What an action becomes; the last tells apart those with a result of their own."""


class _Deciding:
    """The lines of one request, within one transaction that holds the run."""

    def __init__(self, asked: Asked, batch: Batch) -> None:
        run = Run.objects.select_for_update(of=("self",), no_key=True).select_related("agent", "agent_version")
        self.run = run.get(id=batch.run_id)
        self.now = timezone.now()
        self.asked = asked
        self.access = asked.access
        self.batch = batch
        self.version = Batch.objects.values_list("version", flat=True).get(id=batch.id)
        self.found = _Found(asked, batch, self.version)
        # Asked again under the lock: the right may have gone since the page was shown.
        self.may = self.access.may(Right.DECIDE) and still_may(self.access.user.id, self.access.team.id, Right.DECIDE)
        self.contradicted = audit.contradicted(self.access.team.id, self.found.actions.values())
        self.cannot_undo = self._cannot_undo()
        self.said: list[tuple[Decision, uuid.UUID | None]] = []
        self.released: list[_Move] = []
        self.changed = False

    @cached_property
    def team(self) -> Team:
        return Team.objects.get(id=self.access.team.id)

    @cached_property
    def viewed_at(self) -> dt.datetime | None:
        return viewing.first_seen(self.batch, self.access.user) if self.asked.channel == "web" else None

    @cached_property
    def seen(self) -> set[seen.Sight]:
        return seen.seen_by(self.access, self.found.actions)

    @cached_property
    def still_may(self) -> set[uuid.UUID]:
        """Who may decide now: whoever approved and lost the right since is one too few."""
        return set(holders(self.team, Right.DECIDE).values_list("id", flat=True))

    def all(self) -> list[Outcome]:
        judged = [(line, self._judge(line)) for line in self.asked.lines]
        done = self._carry_out([each for _, each in judged if isinstance(each, _Move)])
        answers = [done[line.action] if isinstance(each, _Move) else each for line, each in judged]
        if self.changed:
            self._settle()
        return answers

    def _judge(self, line: Line) -> Outcome | _Move:
        answer = self.found.answer(line, may=self.may)
        if answer is not None:
            return answer
        action = self.found.actions[line.action]
        action.run = self.run
        return self._overdue(action) or self._verdict(line, action)

    def _overdue(self, action: Action) -> Outcome | None:
        """An action whose time is over is closed on the spot."""
        if action.status != ActionStatus.PENDING or not action.expires_at or action.expires_at > self.now:
            return None
        if lifecycle.expire(action.id):
            self.changed = True
            settling.expiry_receipt(action)
        return outcome(action, Result.EXPIRED, NOTHING_RUNS)

    def _verdict(self, line: Line, action: Action) -> Outcome | _Move:
        problem = misfit(line, action)
        if problem:
            return invalid(line, problem)
        if line.verdict in (Verdict.APPROVE, Verdict.EDIT) and action.id in self.contradicted:
            return invalid(line, "This is not what was proposed: somebody changed it in the database.")
        match line.verdict:
            case Verdict.APPROVE:
                return self._approve(line, action)
            case Verdict.EDIT:
                return self._edit(line, action)
            case Verdict.ANSWER:
                return self._answer(line, action)
            case Verdict.REJECT:
                return self._move(line, action, ActionStatus.REJECTED, note=note_of(line))
        return self._move(line, action, None)

    def _approve(self, line: Line, action: Action) -> Outcome | _Move:
        own_run = self.run.owner_id == self.access.user.id
        if own_run and (barred := duties.bar(self.access, self.run, action, self.team)):
            return outcome(action, Result.FORBIDDEN, barred)
        if self.cannot_undo:
            return invalid(line, self.cannot_undo)
        if self._is_unseen(action):
            return invalid(line, f"Look at all of it before you approve it: {excerpts.size_of(action)}.")
        if line.args is not None and line.args != action.args:
            return self._approve_edited(line, action)
        if digest_of(action) != action.digest:
            return invalid(line, "The stored arguments are not what the digest was made of, so nothing can run.")
        votes = [said for said in self.found.said[action.id] if said.verdict == Verdict.APPROVE]
        own = next((vote for vote in votes if vote.by == self.access.user.id), None)
        counting = [vote.by for vote in votes if vote.by in self.still_may and vote.by != self.access.user.id]
        people = tuple(str(person) for person in (*counting, self.access.user.id))
        if len(people) >= action.needed:
            # Whoever said so before says it again once a vote that did not count does: no role releases by itself.
            return self._move(line, action, ActionStatus.APPROVED, note=note_of(line), people=people, again=bool(own))
        if own is not None:
            detail = f"Your approval counts already; {action.needed} different people are needed."
            return outcome(action, Result.ALREADY_DECIDED, detail, by=self.access.user, at=own.at)
        return _Move(line=line, action=action, word=f"approved, {len(people)} of {action.needed}", status=None)

    def _is_unseen(self, action: Action) -> bool:
        if self.asked.channel != "web" or (action.id, action.digest) in self.seen:
            return False
        preview = previews.present(action)
        return excerpts.must_see(action, preview) if self.asked.from_list else preview.is_long

    def _answer(self, line: Line, action: Action) -> Outcome | _Move:
        """A text, or a corrected call, or both. The call is no approval: it is routed like any other."""
        try:
            editing.check_answer(action, line.args)
        except InvalidArguments as error:
            return invalid(line, str(error), errors=error.errors)
        given = None if line.args is None else {"args": line.args}
        return self._move(line, action, ActionStatus.ANSWERED, note=line.answer.strip(), result=given)

    def _approve_edited(self, line: Line, action: Action) -> Outcome:
        edited = self._edit(line, action)
        if edited.superseded_by is None:
            return edited
        new = Action.objects.get(id=edited.superseded_by)
        new.run = self.run
        said = self._approve(Line(action=new.id, digest=new.digest, verdict=Verdict.APPROVE, note=line.note), new)
        approval = self._carry_out([said])[new.id] if isinstance(said, _Move) else said
        detail = f"Changed, then {approval.detail[:1].lower()}{approval.detail[1:]}"
        return replace(approval, action=action.id, detail=detail, superseded_by=new.id)

    def _edit(self, line: Line, action: Action) -> Outcome:
        if action.status != ActionStatus.PENDING:
            return invalid(line, "Only an action that waits for approval can be changed.")
        try:
            edit = editing.prepare(action, line.args or {})
        except InvalidArguments as error:
            return invalid(line, str(error), errors=error.errors)
        new = editing.supersede(action, edit, self.access.user, self.now)
        if new is None:
            return self._overtaken(action)
        edited = Line(action=action.id, digest=action.digest, verdict=Verdict.EDIT, note=line.note)
        self._record([_Move(line=edited, action=action, word="changed", status=None)], superseded_by=new.id)
        return replace(self._applied(action, "changed"), superseded_by=new.id)

    # --- carrying out ---

    def _move(
        self,
        line: Line,
        action: Action,
        status: ActionStatus | None,
        *,
        note: str = "",
        people: tuple[str, ...] = (),
        result: JsonObject | None = None,
        again: bool = False,
    ) -> _Move:
        begins = timing.starts_at(self.run, action, self.now) if status is ActionStatus.APPROVED else None
        return _Move(
            line=line,
            action=action,
            word=PAST[line.verdict],
            status=status,
            note=note,
            people=people,
            begins=begins,
            result=result,
            again=again,
        )

    def _carry_out(self, moves: Sequence[_Move]) -> dict[uuid.UUID, Outcome]:
        """By action. The conditional UPDATE decides what moved; of the rest is said what it is now."""
        moved = self._moved(moves)
        done = [move for move in moves if move.action.id in moved]
        self._record(done)
        answers = {move.action.id: self._applied(move.action, move.word) for move in done}
        for move in done:
            if move.line.verdict is Verdict.APPROVE and move.status is None:
                answers[move.action.id] = replace(answers[move.action.id], counts_only=True)
        return answers | {move.action.id: self._overtaken(move.action) for move in moves if move not in done}

    def _moved(self, moves: Sequence[_Move]) -> set[uuid.UUID]:
        """Which of the actions moved; those that become the same do so in one statement."""
        moved = set()
        alike: dict[_Change, list[_Move]] = defaultdict(list)
        for move in moves:
            if move.status is not None:
                own = None if move.result is None else move.action.id
                alike[move.status, move.note, move.people, move.begins, own].append(move)
            elif move.line.verdict is Verdict.APPROVE or self._settle_unknown(move):
                moved.add(move.action.id)
        for (status, note, people, begins, _), group in alike.items():
            moved |= lifecycle.decide(
                {move.action.id: move.line.digest for move in group},
                status,
                by=self.access.user,
                note=note,
                released_by=list(people),
                starts_at=begins,
                at=self.now,
                result=group[0].result,
            )
        return moved

    def _settle_unknown(self, move: _Move) -> bool:
        happened = move.line.verdict is Verdict.HAPPENED
        action, line = move.action, move.line
        return lifecycle.settle_unknown(
            action.id, action.digest, happened=happened, by=self.access.user, note=line.note, at=self.now
        )

    def _record(self, done: Sequence[_Move], superseded_by: uuid.UUID | None = None) -> None:
        new = [self._decision(move.line, move.action) for move in done if not move.again]
        self.said += [(decision, superseded_by) for decision in Decision.objects.bulk_create(new)]
        self.released += [move for move in done if move.again]
        self.changed = self.changed or bool(done)

    def _decision(self, line: Line, action: Action) -> Decision:
        return Decision(
            action=action,
            actor=self.access.user,
            verdict=line.verdict,
            reason=line.reason,
            note=line.answer.strip() if line.verdict is Verdict.ANSWER else line.note.strip(),
            shown_digest=line.digest,
            shown_version=self.asked.version,
            channel=self.asked.channel,
            at=self.now,
            viewed_at=self.viewed_at,
            opened_details=line.opened_details,
            decided_together=len(self.asked.lines),
        )

    def _settle(self) -> None:
        if self.asked.execution is not None and (self.said or self.released):
            self.batch.execution = self.asked.execution
            Batch.objects.filter(id=self.batch.id).update(execution=self.asked.execution)
        widened = circle.ask_the_others(self.batch)
        settling.settle_batch(self.batch)
        released = [self._release(move) for move in self.released]
        events = [*evidence.of_decisions(self.said, execution=self.batch.execution), *audit.entries(released)]
        receipts.append_all(self.access.team.id, [*events, *widened])

    def _release(self, move: _Move) -> audit.Event:
        """An approval that stands already was said again, and now there are enough."""
        people: list[JsonValue] = [*move.people]
        said: JsonObject = {
            "batch": str(self.batch.id),
            "execution": self.batch.execution,
            "shown_digest": move.line.digest,
            "people": people,
        }
        return audit.Event(move.action.id, "action.released", self.access.user, said)

    # --- answers ---

    def _cannot_undo(self) -> str:
        """Why the batch can't be all or nothing: the first action that would run and that nobody could take back."""
        if self.asked.execution is not Execution.ALL_OR_NOTHING:
            return ""
        approved = {line.action for line in self.asked.lines if line.verdict is Verdict.APPROVE}
        of_batch = Action.objects.filter(batch=self.batch, irreversible=True).only("id", "status", "title")
        final = next((each for each in of_batch if each.id in approved or each.status == ActionStatus.APPROVED), None)
        return f"All or nothing is not possible: “{final.title}” can't be undone." if final else ""

    def _applied(self, action: Action, word: str) -> Outcome:
        return outcome(action, Result.APPLIED, word[:1].upper() + word[1:], by=self.access.user, at=self.now)

    def _overtaken(self, action: Action) -> Outcome:
        """The conditional UPDATE met another status than was read a moment ago: say what it is now."""
        fresh = Action.objects.select_related("decided_by").get(id=action.id)
        gone = outcome(fresh, Result.EXPIRED, NOTHING_RUNS)
        return _settled(fresh, _said_of([action.id])[action.id]) or gone
