"""Rows of the inbox as the values its templates show. No queries here: `inbox.with_actions` has loaded everything."""

from __future__ import annotations

import datetime as dt
import difflib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from accounts.access import Access, Right
from accounts.models import User
from approvals import alike, duties
from approvals.inbox import Outcome, Result
from approvals.models import REASON_WORDS, Decision, HandOver, Reason, Verdict
from approvals.parts import Part
from approvals.standing import ended_by
from approvals.words import chips, final_line, totals_line
from runs import excerpts, previews
from runs.asked import Rung
from runs.engine.together import dependencies
from runs.engine.types import WAITING_ACTIONS, ActionStatus, Policy, Risk, ToolGrant
from runs.models import Action, Batch, Run
from runs.previews import Preview, QuestionPreview, counted, text_of

TONES = {Result.STALE: "high", Result.INVALID: "bad", Result.FORBIDDEN: "bad"}
DIFF_CHARACTERS = 20_000  # beyond this a line diff costs more than it shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a person had chosen and typed for one action; kept when a post is answered by the page again."""

    selected: bool = True
    rejected: bool = False
    reason: str = ""
    note: str = ""
    answer: str = ""
    settled: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One of the places of a two-person approval: taken by a person, or open with words on who may take it."""

    user: User | None = None
    at: dt.datetime | None = None
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What became of a line that was just posted."""

    tone: str
    text: str
    at: dt.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionView:
    id: uuid.UUID
    batch_id: uuid.UUID
    digest: str
    kind: str
    tool: str
    status: str
    preview: Preview
    risk: str
    confidence: float | None
    floor: float | None
    policy: str
    reasoning: str
    note: str
    irreversible: bool
    held: bool
    must_see: bool
    waits: bool
    can_decide: bool
    barred: str
    may_allow: bool
    arguments: tuple[tuple[str, str], ...]
    slots: tuple[Slot, ...]
    said: tuple[Decision, ...]
    edited: Decision | None
    changes: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    result: str
    draft: Draft
    message: Message | None
    starts_at: dt.datetime | None
    huge: str  # its size, when only an excerpt stands on the card
    excerpts: tuple[excerpts.Excerpt, ...]
    needs: tuple[str, ...] = ()  # titles of what must have happened before it
    needed_by: tuple[str, ...] = ()  # titles of what falls with it
    unusual: str = ""
    obstacle: str = ""  # why what was approved is not executed after all

    @property
    def title(self) -> str:
        return self.preview.title[: previews.TITLE_LENGTH]

    @property
    def reasoning_is_long(self) -> bool:
        return previews.is_long(self.reasoning)

    @property
    def can_edit(self) -> bool:
        is_call = isinstance(self.preview, QuestionPreview) and self.preview.call is not None
        return self.can_decide and (self.kind == "action" or is_call)

    @property
    def reason_name(self) -> str:
        return f"reason-{self.id}"

    @property
    def css(self) -> str:
        return "" if self.status == ActionStatus.PENDING else f"action--{self.status}"

    @property
    def totals(self) -> Mapping[str, str]:
        """The numbers that the decide bar adds up when the selection changes."""
        effect = self.preview.effect
        return {
            "verb": effect.verb,
            "one": effect.one,
            "many": effect.many,
            "count": str(effect.count),
            "amount": "" if effect.amount is None else str(effect.amount),
            "currency": effect.currency,
            "people": "\n".join(effect.people),
            "noun": self.preview.noun if self.irreversible else "",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    id: uuid.UUID
    title: str
    agent: str
    rest_of_title: str
    why: str
    run: Run
    version: int
    expires_at: dt.datetime
    is_open: bool
    actions: tuple[ActionView, ...]
    effects: tuple[tuple[str, str], ...]
    risk: str
    votes: str
    ended: str
    ended_at: dt.datetime | None
    totals: str
    final: str
    may_decide: bool
    execution: str
    asked: tuple[str, ...]
    asks_me: bool
    handed: HandOver | None
    ladder: tuple[tuple[str, dt.datetime], ...]
    may_extend: bool
    extended_by: str
    runs: tuple[tuple[str, tuple[ActionView, ...]], ...]
    part: Part

    @property
    def held(self) -> tuple[ActionView, ...]:
        """Approved by people, not begun yet: what can still be taken back."""
        return tuple(action for action in self.actions if action.status == ActionStatus.APPROVED and action.said)

    @property
    def starts_at(self) -> dt.datetime | None:
        return max((action.starts_at for action in self.held if action.starts_at), default=None)

    @property
    def final_nouns(self) -> str:
        """What stands against all or nothing: `the refund and the email`."""
        nouns = [action.preview.noun for action in self.actions if action.irreversible]
        return final_line(nouns).removesuffix(" cannot be undone.")[:120].lower() if nouns else ""

    @property
    def on_the_page(self) -> list[tuple[uuid.UUID, str]]:
        """Id and digest of what must be seen before it is decided and stands here as a whole."""
        return [(action.id, action.digest) for action in self.open_actions if action.must_see and not action.huge]

    @property
    def why_is_long(self) -> bool:
        return previews.is_long(self.why)

    @property
    def things(self) -> str:
        return counted(self.part.total, "thing", "things")

    @property
    def open_actions(self) -> tuple[ActionView, ...]:
        return tuple(action for action in self.actions if action.can_decide)

    @property
    def selectable(self) -> tuple[ActionView, ...]:
        return tuple(action for action in self.open_actions if action.kind == "action" and not action.barred)

    @property
    def selected(self) -> tuple[ActionView, ...]:
        return tuple(action for action in self.selectable if action.draft.selected and not action.draft.rejected)

    @property
    def only_asks(self) -> bool:
        """Questions have no risk: what follows from an answer is approved by itself."""
        return all(action.kind == "question" for action in self.actions)

    @property
    def needs_two(self) -> bool:
        return any(action.slots and action.waits for action in self.actions)

    @property
    def primary_label(self) -> str:
        """The one primary button when the page is first shown; the script keeps it right afterwards."""
        if not self.selectable and any(action.barred for action in self.open_actions):
            return "Send the rejections"
        if not self.selectable:
            return (
                "Send the answer"
                if any(action.kind == "question" for action in self.open_actions)
                else "Save what happened"
            )
        if len(self.selected) < len(self.selectable):
            return f"Approve {len(self.selected)} selected"
        return "Approve" if len(self.selected) == 1 else f"Approve all {len(self.selected)}"


def view_batch(
    batch: Batch,
    access: Access,
    *,
    drafts: Mapping[uuid.UUID, Draft] | None = None,
    outcomes: Iterable[Outcome] = (),
    part: Part | None = None,
) -> BatchView:
    # What applied is seen on the card itself; what did not has to be said.
    messages = {outcome.action: message_of(outcome) for outcome in outcomes if outcome.result is not Result.APPLIED}
    rows = list(batch.actions.all())
    actions = _in_company(
        batch,
        rows,
        [
            view_action(action, batch.run, access, (drafts or {}).get(action.id, Draft()), messages.get(action.id))
            for action in rows
        ],
    )
    agent = str(batch.run.agent_version.definition.get("name") or batch.run.agent.slug)
    waiting = [action for action in actions if action.can_decide and action.kind == "action"] or [
        action for action in actions if action.kind == "action"
    ]
    ended, ended_at = ended_by(batch, rows)
    asked = list(batch.asked.all())
    return BatchView(
        id=batch.id,
        title=batch.title,
        agent=agent if batch.title.startswith(agent) else "",
        rest_of_title=batch.title.removeprefix(agent),
        why=batch.why,
        run=batch.run,
        version=batch.version,
        expires_at=batch.expires_at,
        is_open=batch.status == "open",
        actions=actions,
        effects=chips([action.preview.effect for action in actions]),
        risk=max((action.risk for action in actions), key=_level, default=Risk.LOW),
        votes=_votes(actions),
        ended=ended,
        ended_at=ended_at,
        totals=totals_line([action.preview.effect for action in waiting]),
        final=final_line([action.preview.noun for action in waiting if action.irreversible]),
        may_decide=access.may(Right.DECIDE),
        execution=batch.execution,
        asked=tuple(person.label for person in asked),
        asks_me=not asked or access.user in asked,
        handed=next(reversed(batch.hand_overs.all()), None),
        ladder=tuple((_rung_words(rung), rung.due_at) for rung in batch.rungs.all() if rung.done_at is None),
        may_extend=batch.status == "open" and batch.extended_at is None and access.may(Right.DECIDE),
        extended_by=batch.extended_by.label if batch.extended_by else "",
        part=part or Part(first=0, total=len(actions)),
        runs=tuple(
            (run.words, tuple(actions[place] for place in run.places))
            for run in alike.runs(actions, {action.id: action.unusual for action in actions if action.unusual})
        ),
    )


def _rung_words(rung: Rung) -> str:
    match rung.kind:
        case "remind":
            return "a reminder"
        case "widen":
            return f"{' and '.join(rung.people)} asked too"
    return "rejected, and nothing runs"


def _in_company(batch: Batch, rows: Sequence[Action], views: Sequence[ActionView]) -> tuple[ActionView, ...]:
    """Each action with what it has to do with the others of its batch."""
    unlike = alike.unusual(views)
    needs = dependencies(rows, _grants(batch.run))
    titles = {row.intent: view.title for row, view in zip(rows, views, strict=True)}
    needed_by: dict[str, list[str]] = {}
    for intent, others in needs.items():
        for other in others:
            needed_by.setdefault(other, []).append(titles[intent])
    return tuple(
        replace(
            view,
            needs=tuple(titles[intent] for intent in needs.get(row.intent, ())),
            needed_by=tuple(needed_by.get(row.intent, ())),
            unusual=unlike.get(row.id, ""),
        )
        for row, view in zip(rows, views, strict=True)
    )


def _grants(run: Run) -> dict[str, ToolGrant]:
    """Only what dependencies read; the definition was validated when it was saved."""
    tools = run.agent_version.definition.get("tools") or ()
    return {
        tool["name"]: ToolGrant(name=tool["name"], policy=Policy(tool["policy"]), after=tuple(tool["after"]))
        for tool in tools
        if tool.get("after")
    }


def view_action(
    action: Action,
    run: Run,
    access: Access,
    draft: Draft | None = None,
    message: Message | None = None,
    *,
    whole: bool = False,
) -> ActionView:
    preview = previews.present(action)
    said = tuple(action.decisions.all())
    votes = [each for each in said if each.verdict == Verdict.APPROVE]
    mine = any(vote.actor_id == access.user.id for vote in votes)
    of_two = action.needed > 1 and action.status == ActionStatus.PENDING
    counting = [vote for vote in votes if not of_two or vote.actor_id in access.deciders]
    enough = len(counting) >= action.needed  # a voter may decide again, and whoever voted says so once more
    waits = action.status in WAITING_ACTIONS
    may_decide = access.may(Right.DECIDE)
    pending = action.status == ActionStatus.PENDING and action.kind == "action"
    barred = duties.bar(access, run, action) if pending and may_decide else ""
    earlier = list(action.supersedes.decisions.all()) if action.supersedes else []
    huge = not whole and excerpts.is_huge(action)
    return ActionView(
        id=action.id,
        batch_id=action.batch_id or uuid.UUID(int=0),
        digest=action.digest,
        kind=action.kind,
        tool=action.tool,
        status=action.status,
        preview=preview,
        risk=action.risk,
        confidence=action.confidence,
        floor=_floor(run, action.tool),
        policy=action.route_reason,
        reasoning=action.reasoning,
        note=action.note,
        irreversible=action.irreversible and action.kind == "action" and preview.kind != "limit",
        held=action.held and action.status == ActionStatus.APPROVED,
        must_see=excerpts.must_see(action, preview),
        waits=waits,
        can_decide=waits and may_decide and not (mine and action.status == ActionStatus.PENDING and not enough),
        barred=barred,
        may_allow=mine and may_decide and not waits and action.needed == 1 and action.kind == "action",
        arguments=previews.arguments_of(action.args),
        slots=_slots(action, counting, may_decide and not mine and not barred),
        said=tuple(each for each in said if each.verdict != Verdict.EDIT),
        edited=next((each for each in earlier if each.verdict == Verdict.EDIT), None),
        changes=_changes(action),
        result=text_of(action.result, ""),
        draft=draft or Draft(),
        message=message,
        starts_at=action.starts_at if action.status == ActionStatus.APPROVED else None,
        obstacle=_obstacle(action, said),
        huge=excerpts.size_of(action) if huge else "",
        excerpts=excerpts.excerpts_of(action) if huge else (),
    )


def message_of(outcome: Outcome) -> Message:
    return Message(tone=TONES.get(outcome.result, ""), text=outcome.detail, at=outcome.at)


def reasons() -> list[tuple[str, str]]:
    return [(reason.value, REASON_WORDS[reason]) for reason in Reason]


def _obstacle(action: Action, said: Sequence[Decision]) -> str:
    """The machinery's own words. What people said, also to take an approval back, stands beside their names."""
    fell = action.status in (ActionStatus.CANCELLED, ActionStatus.STALE, ActionStatus.EXPIRED, ActionStatus.REVOKED)
    if not fell or action.executed_at is not None or any(each.verdict == Verdict.REVOKE for each in said):
        return ""
    return action.note.rstrip(".") if said and said[-1].note != action.note else ""


def _votes(actions: Sequence[ActionView]) -> str:
    """`1 of 2 approved`, for the action that is furthest; empty before the first vote and when nothing waits."""
    begun = [
        (sum(slot.user is not None for slot in action.slots), len(action.slots))
        for action in actions
        if action.waits and any(slot.user for slot in action.slots)
    ]
    return "{} of {}".format(*max(begun)) if begun else ""


def _slots(action: Action, counting: Sequence[Decision], mine_next: bool) -> tuple[Slot, ...]:
    """`counting`: the approvals of those who may still decide."""
    if action.needed < 2:
        return ()
    taken = tuple(Slot(user=each.actor, at=each.at) for each in counting)
    if action.status != ActionStatus.PENDING:
        return taken
    ordinals = ("the first", "the second", "the third")
    open_places = tuple(
        Slot(
            words=f"You can be {ordinals[min(place, 2)]}"
            if mine_next and place == len(taken)
            else f"Someone else must be {ordinals[min(place, 2)]}"
        )
        for place in range(len(taken), action.needed)
    )
    return taken + open_places


def _changes(action: Action) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """A person's edit: each changed argument with its lines that went ("old") and came ("new")."""
    if action.supersedes is None:
        return ()
    before, after = action.supersedes.args, action.args
    return tuple(
        (name, _line_diff(text_of(before.get(name), ""), text_of(after.get(name), "")))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    )


def _line_diff(before: str, after: str) -> tuple[tuple[str, str], ...]:
    signs = {"-": "old", "+": "new"}
    lines = difflib.ndiff(before.split("\n"), after.split("\n")) if len(before) + len(after) < DIFF_CHARACTERS else ()
    diff = tuple((signs[line[0]], line[2:]) for line in lines if line[0] in signs and line[2:].strip())
    return diff or (("old", before), ("new", after))


def _floor(run: Run, tool: str) -> float | None:
    """The confidence this tool needs to run alone, where its policy is by confidence."""
    for grant in run.agent_version.definition.get("tools") or ():
        if grant.get("name") == tool and grant.get("policy") == "confidence":
            threshold = grant.get("threshold")
            return 0.9 if threshold is None else float(threshold)
    return None


def _level(risk: str) -> int:
    return Risk(risk).level


def nav_count(open_count: int) -> dict[str, object]:
    """The frame's own item beside Approvals."""
    return {"key": "approvals", "count": open_count}
