"""A text taken out of a team's runs, as a customer's name or address: found, counted, and erased wherever it stands.

What people decided on, and the audit log of it, stay as they are: they prove who allowed what. Text is found as a
search finds it: whatever its letter case, accents and the signs between its words.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import Http404
from django.shortcuts import get_object_or_404

from accounts import receipts
from accounts.access import Access, Right, rows
from accounts.models import User
from runs import documents, erasure, filtering
from runs.asked import Note, RunMessage
from runs.erasure import ERASED, NotYet
from runs.errors import Invalid
from runs.models import Action, Run, SearchDocument, Step, StepPayload
from runs.words import spelled, text_of, words
from traces import names, text_index
from traces.models import Alert, AlertEvent, SavedSearch
from traces.snippets import folded, pattern_of
from traces.text_index import needle
from traces.tree import Text

T = TypeVar("T")
LEAST = 3
AT_ONCE = 100  # runs in one transaction
TITLE, SUMMARY = 200, 300  # characters that the columns hold
STEP_TEXTS = ("title", "summary")
PAYLOADS = ("input", "output", "reasoning", "error")
RUN_TEXTS = ("task", "result", "stop_detail", "plan", "metadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """How many rows hold the text. `live_runs` are left out until they have ended; `actions` are kept as evidence."""

    runs: int = 0
    live_runs: int = 0
    steps: int = 0
    documents: int = 0
    messages: int = 0
    notes: int = 0
    searches: int = 0
    alerts: int = 0
    actions: int = 0

    @property
    def to_erase(self) -> int:
        return self.runs + self.steps + self.messages + self.notes + self.searches + self.alerts


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who signs in here. `refusal` says why they can't be erased on this page; empty when they can."""

    user: User
    found: erasure.Found
    refusal: str


def read(raw: str) -> Text:
    """Raises Invalid for what is too little to be anybody's."""
    found = words(raw)
    if sum(map(len, found)) < LEAST:
        raise Invalid({"text": f"Write a name, an address or a number of at least {LEAST} letters or digits."})
    return Text(tuple(found))


# --- people ----------------------------------------------------------------------------------------------------------


def people(access: Access, text: Text) -> list[Person]:
    """Of the team, or who started runs in it, under that name or address."""
    access.require(Right.MANAGE)
    owners = names.observed(access.team.id, "owner")
    known = User.objects.filter(Q(memberships__team=access.team) | Q(id__in=owners), is_active=True).distinct()
    meant = [user for user in known.order_by("username") if _names_hold(user, text)]
    return [Person(user=user, found=erasure.find(user), refusal=_refusal(access, user)) for user in meant]


def _names_hold(user: User, text: Text) -> bool:
    return any(_holds(name, text) for name in names.names_of(user))


def _refusal(access: Access, user: User) -> str:
    elsewhere = Q(memberships__user=user) | Q(runs__owner=user)
    if user.id == access.user.id:
        return "This is you. Another admin can erase you."
    if type(access.team).objects.filter(elsewhere).exclude(id=access.team.id).exists():
        return "They are in other teams too: whoever runs this installation erases them with manage.py erase_person."
    live = Run.objects.filter(owner=user, ended_at__isnull=True).count()
    return f"{live} of their runs have not ended: cancel them, or wait." if live else ""


def erase_person(access: Access, user_id: uuid.UUID | str, *, username: str) -> erasure.Found:
    """`username` is theirs, typed by who erases them. Raises Invalid, and NotYet, whose text says why not."""
    access.require(Right.MANAGE)
    team = access.team
    known = User.objects.filter(Q(memberships__team=team) | Q(runs__team=team), is_active=True).distinct()
    try:
        user = get_object_or_404(known, id=uuid.UUID(str(user_id)))
    except ValueError as error:
        raise Http404("No such person.") from error
    if username != user.username:
        raise Invalid({"username": "This is not their username. Nothing was erased."})
    if refusal := _refusal(access, user):
        raise NotYet(refusal)
    return erase_user(user, by=access.user, alerts=Alert.objects.filter(team=team))


def erase_user(user: User, *, by: User | str, alerts: QuerySet[Alert]) -> erasure.Found:
    """All of it, or nothing: whoever asks, on the page, by the API or in a shell. Raises NotYet."""
    with transaction.atomic():
        alerts.filter(email__iexact=user.email).exclude(email="").update(email="")
        # What fired is labelled with their name, or with the title of a run of theirs.
        named = [str(user.id), *map(str, Run.objects.filter(owner=user).values_list("id", flat=True))]
        for some in _parts(named):
            AlertEvent.objects.filter(alert__in=alerts, subject__in=some).update(label=ERASED)
        return erasure.erase(user, by=by)


# --- texts -----------------------------------------------------------------------------------------------------------


def find(access: Access, text: Text) -> Traces:
    """Raises Invalid for a text that stands nearly everywhere."""
    access.require(Right.MANAGE)
    counts: dict[str, int] = dict.fromkeys(Traces.__dataclass_fields__, 0)
    run_ids = _run_ids(access, text)
    ended = list(Run.objects.filter(id__in=run_ids, ended_at__isnull=False).values_list("id", flat=True))
    counts["live_runs"] = len(run_ids) - len(ended)
    counts["runs"] = len(ended)
    for some in _parts(ended):
        steps = [step for step in _steps(some) if _step_holds(step, text)]
        counts["steps"] += len(steps)
        counts["documents"] += SearchDocument.objects.filter(text_index.holds(text), run__in=some).count()
    # What is kept is counted wherever it is, so that nobody takes it for gone.
    counts["actions"] = sum(_action_holds(action, text) for action in Action.objects.filter(run__in=run_ids))
    counts["messages"] = len(_messages(access, text))
    counts["notes"] = _notes(access, text).count()
    counts["searches"] = len(_searches(access, text))
    counts["alerts"] = len(_alerts(access, text))
    return Traces(**counts)


def erase(access: Access, text: Text) -> Traces:
    """Run by run, so that an interruption loses nothing: what is left is found again. Returns what was found."""
    found = find(access, text)
    ended = Run.objects.filter(id__in=_run_ids(access, text), ended_at__isnull=False).values_list("id", flat=True)
    for some in _parts(list(ended)):
        with transaction.atomic():
            _erase_steps(some, text)
            _erase_runs(some, text)
    with transaction.atomic():
        for message in _messages(access, text):
            RunMessage.objects.filter(id=message.id).update(text=_without(message.text, text), sealed=None)
        for note in _notes(access, text):
            left = _without(note.text, text)
            Note.objects.filter(id=note.id).update(text=left, words=spelled(words(left)))
        SavedSearch.objects.filter(id__in=[search.id for search in _searches(access, text)]).delete()
        _erase_alerts(_alerts(access, text), text)
        payload = {name: count for name, count in asdict(found).items() if name not in ("actions", "live_runs")}
        receipts.append(
            access.team.id,
            "text.erased",
            actor=access.user,
            subject_type="team",
            subject_id=access.team.id,
            payload=payload,
        )
    return found


def _run_ids(access: Access, text: Text) -> set[uuid.UUID]:
    """Runs that hold the text: by the index, and by looking into what no index has: the rest of long steps, and what
    content filters sealed."""
    known = SearchDocument.objects.filter(team=access.team.id)
    indexed = text_index.narrowed(known.filter(text_index.holds(text)), [(text,)])
    if indexed is None or not text_index.are_few(indexed):
        raise Invalid({"text": f"More than {text_index.MOST:,} steps hold this: it is too common to be anybody's."})
    found = set(indexed.values_list("run_id", flat=True))
    not_indexed = Q(document__cut=True) | Q(document=None) | Q(payload__sealed__isnull=False)
    beyond = rows(access, Step).filter(not_indexed, payload__isnull=False)
    for step in beyond.exclude(run__in=found).select_related("payload").iterator(chunk_size=AT_ONCE):
        if step.run_id not in found and _step_holds(step, text):
            found.add(step.run_id)
    longer = Q(sealed__isnull=False) | Q(documents__seq=0, documents__cut=True)
    others = rows(access, Run).exclude(id__in=found).filter(longer).distinct()
    return found | {run.id for run in others.iterator(chunk_size=AT_ONCE) if _run_holds(run, text)}


def _parts(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(ids), AT_ONCE):
        yield ids[at : at + AT_ONCE]


def _steps(run_ids: Sequence[uuid.UUID]) -> QuerySet[Step]:
    steps = Step.objects.filter(run__in=run_ids, payload__isnull=False)
    return steps.select_related("run", "payload").order_by("id")


def _erase_steps(run_ids: Sequence[uuid.UUID], text: Text) -> None:
    changed = [step for step in _steps(run_ids) if _step_holds(step, text)]
    for step in changed:
        for row, fields in ((step, STEP_TEXTS), (step.payload, PAYLOADS)):
            for name in fields:
                setattr(row, name, _without(getattr(row, name), text))
        step.title, step.summary = step.title[:TITLE], step.summary[:SUMMARY]
        step.payload.sealed = None
    Step.objects.bulk_update(changed, STEP_TEXTS, batch_size=AT_ONCE)
    StepPayload.objects.bulk_update([step.payload for step in changed], [*PAYLOADS, "sealed"], batch_size=AT_ONCE)
    documents.rewrite(changed)
    still = SearchDocument.objects.filter(text_index.holds(text), step__in=[step.id for step in changed])
    _erase_whole([document.step for document in still.select_related("step__run", "step__payload") if document.step])


def _erase_whole(steps: Sequence[Step]) -> None:
    """Of steps in which the words stand side by side only across two values, such as the names in a list."""
    for step in steps:
        step.title, step.summary = ERASED, ""
        step.payload.input = step.payload.output = None
        step.payload.reasoning = step.payload.error = ""
    Step.objects.bulk_update(steps, STEP_TEXTS, batch_size=AT_ONCE)
    StepPayload.objects.bulk_update([step.payload for step in steps], PAYLOADS, batch_size=AT_ONCE)
    documents.rewrite(steps)


def _erase_runs(run_ids: Sequence[uuid.UUID], text: Text) -> None:
    for run in Run.objects.filter(id__in=run_ids):
        if not _run_holds(run, text):
            continue
        for name in RUN_TEXTS:
            setattr(run, name, _without(getattr(run, name), text))
        for name, nothing in (("task", ERASED), ("result", ""), ("stop_detail", ""), ("plan", None), ("metadata", {})):
            if _holds(getattr(run, name), text):  # across two values
                setattr(run, name, nothing)
        run.sealed = None
        run.save(update_fields=[*RUN_TEXTS, "sealed"])
        documents.rewrite_run(run)


def _erase_alerts(alerts: Iterable[Alert], text: Text) -> None:
    """Deleted where what is watched names them, as saved searches are. Who is told only is told no more."""
    for alert in alerts:
        if _any_holds(alert, ("name", "query"), text):
            alert.delete()
            continue
        if _holds(alert.email, text):
            Alert.objects.filter(id=alert.id).update(email="")
        for event in _fired(alert, text):
            AlertEvent.objects.filter(id=event.id).update(label=_without(event.label, text)[:TITLE])


# --- where it stands -------------------------------------------------------------------------------------------------


def _holds(value: Any, text: Text) -> bool:
    """As the search would find it in the whole of the value."""
    return needle(text) in spelled(words(text_of(value, 2**31)[0]))


def _any_holds(row: Any, fields: Iterable[str], text: Text) -> bool:
    return any(_holds(getattr(row, name), text) for name in fields)


def _step_holds(step: Step, text: Text) -> bool:
    sealed = filtering.unsealed(step.payload.sealed, step.key)
    return (
        _any_holds(step, STEP_TEXTS, text)
        or _any_holds(step.payload, PAYLOADS, text)
        or any(_holds(value, text) for value in sealed.values())
    )


def _run_holds(run: Run, text: Text) -> bool:
    sealed = filtering.unsealed(run.sealed, str(run.id))
    return _any_holds(run, RUN_TEXTS, text) or any(_holds(value, text) for value in sealed.values())


def _action_holds(action: Action, text: Text) -> bool:
    return _any_holds(action, ("title", "args", "reasoning", "preview", "plan_summary", "result"), text)


def _messages(access: Access, text: Text) -> list[RunMessage]:
    ended = rows(access, RunMessage).filter(run__ended_at__isnull=False)
    return [message for message in ended.iterator(chunk_size=AT_ONCE) if _message_holds(message, text)]


def _message_holds(message: RunMessage, text: Text) -> bool:
    sealed = filtering.unsealed(message.sealed, str(message.id))
    return _holds(message.text, text) or any(_holds(value, text) for value in sealed.values())


def _notes(access: Access, text: Text) -> QuerySet[Note]:
    return rows(access, Note).filter(text_index.holds(text, ("words",)))


def _searches(access: Access, text: Text) -> list[SavedSearch]:
    return [search for search in rows(access, SavedSearch) if _holds(f"{search.name} {search.query}", text)]


def _alerts(access: Access, text: Text) -> list[Alert]:
    """With what fired of them: its label is the title of a run, or the name of a person."""
    alerts = rows(access, Alert).prefetch_related("events")
    return [alert for alert in alerts if _alert_holds(alert, text) or _fired(alert, text)]


def _alert_holds(alert: Alert, text: Text) -> bool:
    return _any_holds(alert, ("name", "query", "email"), text)


def _fired(alert: Alert, text: Text) -> list[AlertEvent]:
    return [event for event in alert.events.all() if _holds(event.label, text)]


# --- taking it out ---------------------------------------------------------------------------------------------------


def _without(value: Any, text: Text) -> Any:
    """The same JSON value with ERASED wherever the text stood; names of members included."""
    if isinstance(value, str):
        return _cut(value, text)
    if isinstance(value, dict):
        return {_cut(name, text): _without(item, text) for name, item in value.items()}
    if isinstance(value, list):
        return [_without(item, text) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and _holds(str(value), text):
        return ERASED
    return value


def _cut(value: str, text: Text) -> str:
    pieces, at = [], 0
    for match in pattern_of(text).finditer(folded(value)):
        pieces += [value[at : match.start()], ERASED]
        at = match.end()
    return "".join([*pieces, value[at:]])
