"""What a browser that watches the inbox is sent: fragments of the very partials that the page is made of."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field

from django.db.models import Q
from django.template.loader import render_to_string
from django.utils import timezone

from accounts.access import Access, get, rows
from approvals import inbox, parts, presenter
from approvals.rows import view_row
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
    head: tuple[int, int] | None = None

    def forget(self) -> None:
        """Everything counts as changed at the next reading."""
        self.versions = dict.fromkeys(self.versions, (0, "", ()))
        self.head = None


def catch_up(access: Access, shown: Shown) -> str:
    """Everything that differs from what was sent before, as HTML; empty when nothing does. Updates `shown`."""
    versions = _versions(access, shown)
    changed = [batch for batch, version in versions.items() if shown.versions.get(batch) != version]
    head = (
        inbox.open_count(access),
        sum(batch > shown.newest and state == "open" for batch, (_, state, _) in versions.items()),
    )
    if not changed and head == shown.head:
        return ""
    first = not shown.versions
    shown.versions, shown.head = versions, head
    found = inbox.with_rows(rows(access, Batch)).filter(id__in=changed[:MOST])
    pieces = [_head(*head)]
    for batch in found:
        pieces.append(_row(batch, access, shown))
        if batch.id == shown.opened or not first:
            pieces.append(_whole(batch.id, access))
    return "".join(pieces)


def _versions(access: Access, shown: Shown) -> Versions:
    """Of every batch that may stand in this browser's list. The statuses tell of execution, which raises no version."""
    recent = Q(status="open") | Q(closed_at__gte=timezone.now() - KEPT) | Q(id=shown.opened)
    found: Versions = {}
    columns = ("id", "version", "status", "actions__status")
    for batch, version, state, status in rows(access, Batch).filter(recent).order_by("id").values_list(*columns):
        statuses = found[batch][2] if batch in found else ()
        found[batch] = (version, state, tuple(sorted([*statuses, status or ""])))
    return found


def _head(open_count: int, new: int) -> str:
    return render_to_string("approvals/_live_head.html", {"count": presenter.nav_count(open_count), "new": new})


def _row(batch: Batch, access: Access, shown: Shown) -> str:
    context = {"row": view_row(batch, access), "opened_id": shown.opened}
    return render_to_string("approvals/_batch_row.html", context)


def _whole(batch_id: uuid.UUID, access: Access) -> str:
    """Of a batch that is looked at, or that changed under our eyes: the notice and each action's state."""
    part, found = parts.part_of(batch_id)
    view = presenter.view_batch(get(access, found, batch_id), access, part=part)
    names = ("approvals/_batch_notice.html", "approvals/_states.html")
    return "".join(render_to_string(name, {"batch": view}) for name in names)
