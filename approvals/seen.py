"""What a person was shown. Whoever was not shown the whole of an action can't approve it: the tail of a long payload is
where the harm hides. The API needs no such record: it has no short form, and its digest comes with all arguments."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from accounts.access import Access, Right, rows
from approvals.models import Shown
from runs.models import Action

Sight = tuple[uuid.UUID, str]


def record(access: Access, sights: Iterable[Sight]) -> None:
    """The whole of these actions (id, digest) stands on a page that is sent now. Once each; nothing for those who can't
    decide anyway."""
    wanted = set(sights) if access.may(Right.DECIDE) else set()
    if not wanted:
        return
    new = wanted - seen_by(access, [action for action, _ in wanted])
    Shown.objects.bulk_create(
        [Shown(action_id=action, user=access.user, digest=digest) for action, digest in sorted(new)],
        ignore_conflicts=True,
    )


def seen_by(access: Access, actions: Iterable[uuid.UUID]) -> set[Sight]:
    found = rows(access, Shown).filter(user=access.user, action_id__in=list(actions))
    return set(found.values_list("action_id", "digest"))


def not_seen(action: Action, seen: set[Sight]) -> bool:
    return (action.id, action.digest) not in seen
