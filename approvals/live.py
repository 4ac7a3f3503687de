"""What a browser that watches the inbox is sent: fragments of the very partials that the page is made of."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field

from django.db.models import Q
from django.template.loader import render_to_string
from django.utils import timezone

from accounts.access import Access, get, rows
from accounts.models import User
from approvals import inbox, listing, parts, presence, presenter
from approvals.listing import Counts
from approvals.rows import view_row
from runs.engine.types import RunStatus
from runs.models import Batch

KEPT = dt.timedelta(hours=24)
MOST = 200

Versions = dict[uuid.UUID, tuple[int, str, tuple[str, ...]]]


@dataclass(slots=True)
class Shown:
    """What this browser has. `newest` is the newest batch its list was made with; `opened` the batch it looks at."""

    newest: uuid.UUID
    opened: uuid.UUID | None = None
    versions: Versions = field(default_factory=dict)
    head: tuple[Counts, int] | None = None
    place: presence.Place = field(default_factory=presence.Place)
    present: dict[uuid.UUID, str | None] = field(default_factory=dict)

    def forget(self) -> None:
        """Everything counts as changed at the next reading."""
        self.versions = dict.fromkeys(self.versions, (0, "", ()))
        self.head = None
        self.present = dict.fromkeys(self.present)

    def hear(self, text: str) -> None:
        """What a page says: `reviewing` and the batch that is looked at, or none; or that a form's answer changed the
        page and may be older than what was sent, so that everything is wanted once more."""
        word, _, rest = text.partition(" ")
        if word != "reviewing":
            self.forget()
            return
        try:
            self.place.batch = uuid.UUID(rest) if rest else None
        except ValueError:
            return
        if self.place.batch not in (None, self.opened):
            self.opened = self.place.batch
            self.present = dict.fromkeys(self.present)


def catch_up(access: Access, shown: Shown) -> str:
    """Everything that differs from what was sent before, as HTML; empty when nothing does. Updates `shown`."""
    people = presence.meet(access, shown.place)
    versions = _versions(access, shown)
    changed = [batch for batch, version in versions.items() if shown.versions.get(batch) != version]
    head = (
        listing.counts(access),
        sum(batch > shown.newest and state == "open" for batch, (_, state, _) in versions.items()),
    )
    moved = _moved(shown, {batch: found for batch, found in people.items() if batch in versions})
    if not changed and head == shown.head:
        return "".join(moved)
    first = not shown.versions
    shown.versions, shown.head = versions, head
    found = inbox.with_rows(rows(access, Batch)).filter(id__in=changed[:MOST])
    pieces = [_head(*head)]
    for batch in found:
        pieces.append(_row(batch, shown, people.get(batch.id, ())))
        if batch.id == shown.opened or not first:
            pieces.append(_whole(batch.id, access))
    return "".join([*pieces, *moved])


def gone(team_id: uuid.UUID, shown: Shown) -> None:
    """The page was closed."""
    presence.leave(team_id, shown.place)


def _moved(shown: Shown, people: presence.People) -> list[str]:
    """The places of those batches whose reviewers are not the ones that were sent before."""
    now: dict[uuid.UUID, str | None] = {batch: presence.words(found) for batch, found in people.items()}
    changed = [batch for batch in {**shown.present, **now} if shown.present.get(batch, "") != now.get(batch, "")]
    shown.present = now
    return [_present(batch, people.get(batch, ()), now.get(batch) or "") for batch in changed]


def _present(batch_id: uuid.UUID, people: tuple[User, ...], words: str) -> str:
    return render_to_string("approvals/_present.html", {"id": batch_id, "reviewers": people, "reviewed": words})


def _versions(access: Access, shown: Shown) -> Versions:
    """Of every batch that may stand in this browser's list, in its order. The statuses tell of execution and of a
    paused run, which raise no version."""
    recent = Q(status="open") | Q(closed_at__gte=timezone.now() - KEPT) | Q(id=shown.opened)
    found: Versions = {}
    columns = ("id", "version", "status", "actions__status", "run__status")
    ordered = rows(access, Batch).filter(recent).order_by("expires_at", "id")
    for batch, version, state, status, run in ordered.values_list(*columns):
        statuses = found[batch][2] if batch in found else ("paused",) if run == RunStatus.PAUSED else ()
        found[batch] = (version, state, tuple(sorted([*statuses, status or ""])))
    return found


def _head(counts: Counts, new: int) -> str:
    context = {"counts": counts, "count": presenter.nav_count(counts.mine), "new": new}
    return render_to_string("approvals/_live_head.html", context)


def _row(batch: Batch, shown: Shown, people: tuple[User, ...]) -> str:
    reviewed = {"reviewers": people, "reviewed": presence.words(people)}
    context = {"row": view_row(batch), "opened_id": shown.opened, **reviewed}
    return render_to_string("approvals/_batch_row.html", context)


def _whole(batch_id: uuid.UUID, access: Access) -> str:
    """Of a batch that is looked at, or that changed under our eyes: the notice and each action's state."""
    part, found = parts.part_of(batch_id)
    view = presenter.view_batch(get(access, found, batch_id), access, part=part)
    names = ("approvals/_asked.html", "approvals/_batch_notice.html", "approvals/_states.html")
    return "".join(render_to_string(name, {"batch": view}) for name in names)
