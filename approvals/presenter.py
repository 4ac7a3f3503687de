"""Rows of the inbox as the values its templates show. No queries here: `inbox.with_actions` has loaded everything."""

from __future__ import annotations

import datetime as dt
import difflib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from accounts.access import Access, Right
from accounts.models import User
from approvals import duties
from approvals.inbox import PAST, Outcome, Result
from approvals.models import REASON_WORDS, Decision, Reason, Verdict
from runs import previews
from runs.engine.types import WAITING_ACTIONS, ActionStatus, Risk
from runs.models import Action, Batch, Run
from runs.previews import Effect, Preview, QuestionPreview, counted, money, text_of

MUST_SEE = {Risk.HIGH, Risk.CRITICAL}
TONES = {Result.STALE: "high", Result.INVALID: "bad", Result.FORBIDDEN: "bad"}
EXPIRING = dt.timedelta(minutes=30)
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

    @property
    def title(self) -> str:
        return self.preview.title

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

    @property
    def things(self) -> str:
        return counted(len(self.actions), "thing", "things")

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
) -> BatchView:
    # What applied is seen on the card itself; what did not has to be said.
    messages = {outcome.action: message_of(outcome) for outcome in outcomes if outcome.result is not Result.APPLIED}
    rows = list(batch.actions.all())
    actions = tuple(
        view_action(action, batch.run, access, (drafts or {}).get(action.id, Draft()), messages.get(action.id))
        for action in rows
    )
    agent = str(batch.run.agent_version.definition.get("name") or batch.run.agent.slug)
    waiting = [action for action in actions if action.can_decide and action.kind == "action"] or [
        action for action in actions if action.kind == "action"
    ]
    ended, ended_at = _ended(batch, rows)
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
        effects=_effects(actions),
        risk=max((action.risk for action in actions), key=_level, default=Risk.LOW),
        votes=_votes(actions),
        ended=ended,
        ended_at=ended_at,
        totals=totals_line([action.preview.effect for action in waiting]),
        final=final_line([action.preview.noun for action in waiting if action.irreversible]),
        may_decide=access.may(Right.DECIDE),
    )


def view_action(
    action: Action, run: Run, access: Access, draft: Draft | None = None, message: Message | None = None
) -> ActionView:
    preview = previews.present(action)
    said = tuple(action.decisions.all())
    mine = any(each.verdict == Verdict.APPROVE and each.actor_id == access.user.id for each in said)
    waits = action.status in WAITING_ACTIONS
    may_decide = access.may(Right.DECIDE)
    pending = action.status == ActionStatus.PENDING and action.kind == "action"
    barred = duties.bar(access, run, action) if pending and may_decide else ""
    earlier = list(action.supersedes.decisions.all()) if action.supersedes else []
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
        irreversible=action.irreversible and action.kind == "action",
        held=action.held and action.status == ActionStatus.APPROVED,
        must_see=Risk(action.risk) in MUST_SEE or preview.is_long,
        waits=waits,
        can_decide=waits and may_decide and not (mine and action.status == ActionStatus.PENDING),
        barred=barred,
        may_allow=mine and may_decide and not waits and action.needed == 1 and action.kind == "action",
        arguments=previews.arguments_of(action.args),
        slots=_slots(action, said, may_decide and not mine and not barred),
        said=tuple(each for each in said if each.verdict != Verdict.EDIT),
        edited=next((each for each in earlier if each.verdict == Verdict.EDIT), None),
        changes=_changes(action),
        result=text_of(action.result, ""),
        draft=draft or Draft(),
        message=message,
    )


def message_of(outcome: Outcome) -> Message:
    return Message(tone=TONES.get(outcome.result, ""), text=outcome.detail, at=outcome.at)


def reasons() -> list[tuple[str, str]]:
    return [(reason.value, REASON_WORDS[reason]) for reason in Reason]


# --- lines of words --------------------------------------------------------------------------------------------------


def totals_line(effects: Sequence[Effect]) -> str:
    """`Sends $84.00, changes 1 record, emails 1 person.`"""
    terms = [f"sends {' and '.join(_sums(effects))}"] if any(effect.amount is not None for effect in effects) else []
    for verb, one, many in dict.fromkeys((e.verb, e.one, e.many) for e in effects if e.amount is None):
        same = [effect for effect in effects if (effect.verb, effect.one) == (verb, one) and effect.amount is None]
        terms.append(f"{verb} {counted(_count(same), one, many)}")
    line = ", ".join(terms)
    return f"{line[:1].upper()}{line[1:]}." if line else ""


def final_line(nouns: Sequence[str]) -> str:
    """`The refund and the email cannot be undone.`"""
    terms = [
        f"the {noun}" if nouns.count(noun) == 1 else counted(nouns.count(noun), noun, plural(noun))
        for noun in dict.fromkeys(nouns)
    ]
    if not terms:
        return ""
    line = f"{', '.join(terms[:-1])} and {terms[-1]}" if len(terms) > 1 else terms[0]
    return f"{line[:1].upper()}{line[1:]} cannot be undone."


def plural(noun: str) -> str:
    return f"{noun}s"


def _sums(effects: Sequence[Effect]) -> list[str]:
    sums: dict[str, Decimal] = {}
    for effect in effects:
        if effect.amount is not None:
            sums[effect.currency] = sums.get(effect.currency, Decimal(0)) + effect.amount
    return [money(total, currency) for currency, total in sums.items()]


def _count(effects: Sequence[Effect]) -> int:
    """People are counted once, however many e-mails they get."""
    if any(effect.people for effect in effects):
        return len({person.casefold() for effect in effects for person in effect.people})
    return sum(effect.count for effect in effects)


def _effects(actions: Sequence[ActionView]) -> tuple[tuple[str, str], ...]:
    """Icon and words for the row of the list: `$84.00`, `1 record`, `1 email`."""
    effects = [action.preview.effect for action in actions]
    chips = [("banknote", total) for total in _sums(effects)]
    for icon, one, many in dict.fromkeys((e.icon, e.one, e.many) for e in effects if e.amount is None):
        same = [effect for effect in effects if (effect.icon, effect.one) == (icon, one) and effect.amount is None]
        words = ("email", "emails") if icon == "mail" else (one, many)
        chips.append((icon, counted(sum(effect.count for effect in same), *words)))
    return tuple(chips)


def _votes(actions: Sequence[ActionView]) -> str:
    """`1 of 2 approved`, for the action that is furthest; empty before the first vote and when nothing waits."""
    begun = [
        (sum(slot.user is not None for slot in action.slots), len(action.slots))
        for action in actions
        if action.waits and any(slot.user for slot in action.slots)
    ]
    return "{} of {}".format(*max(begun)) if begun else ""


def _slots(action: Action, said: Sequence[Decision], mine_next: bool) -> tuple[Slot, ...]:
    if action.needed < 2:
        return ()
    approvals = [each for each in said if each.verdict == Verdict.APPROVE]
    taken = tuple(Slot(user=each.actor, at=each.at) for each in approvals)
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


def _ended(batch: Batch, rows: Sequence[Action]) -> tuple[str, dt.datetime | None]:
    """`Marco Ruiz approved this batch`, or who decided what when several did; empty while it is open."""
    if batch.status == "open":
        return "", None
    said = [each for action in rows for each in action.decisions.all() if each.verdict != Verdict.EDIT]
    if not said:
        expired = any(action.status == ActionStatus.EXPIRED for action in rows)
        return "Nobody decided in time, so nothing ran" if expired else "This batch was withdrawn", batch.closed_at
    people = list(dict.fromkeys(each.actor.label for each in said))
    verdicts = list(dict.fromkeys(each.verdict for each in said))
    who = people[0] if len(people) == 1 else f"{', '.join(people[:-1])} and {people[-1]}"
    word = PAST[Verdict(verdicts[0])] if len(verdicts) == 1 else "decided"
    word = "settled" if word.startswith("settled") else word
    return f"{who} {word} this batch", max(each.at for each in said)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The figures of the page head and its filter chips."""

    batches: int = 0
    actions: int = 0
    mine: int = 0
    two_person: int = 0
    expiring: int = 0
    ids: dict[str, frozenset[uuid.UUID]] = field(default_factory=dict)

    @property
    def words(self) -> str:
        if not self.batches:
            return ""
        return f"{counted(self.actions, 'action', 'actions')} in {counted(self.batches, 'batch', 'batches')}"


def count(views: Sequence[BatchView], now: dt.datetime) -> Counts:
    groups = {
        "mine": frozenset(view.id for view in views if any(not action.barred for action in view.open_actions)),
        "two_person": frozenset(view.id for view in views if view.needs_two),
        "expiring": frozenset(view.id for view in views if view.expires_at - now < EXPIRING),
    }
    return Counts(
        batches=len(views),
        actions=sum(action.waits for view in views for action in view.actions),
        mine=len(groups["mine"]),
        two_person=len(groups["two_person"]),
        expiring=len(groups["expiring"]),
        ids=groups,
    )
