"""Searches under a name: one's own, and those that others share with the team."""

from __future__ import annotations

import uuid

from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.access import Access, Right, get, rows
from runs.errors import Invalid
from traces.models import SavedSearch
from traces.query import parse

MOST = 100


def seen(access: Access) -> QuerySet[SavedSearch]:
    """Own ones first, by name."""
    mine_or_shared = Q(owner=access.user) | Q(shared=True)
    return rows(access, SavedSearch).filter(mine_or_shared).select_related("owner").order_by("shared", "name")[:MOST]


def save(access: Access, *, name: str, query: str, shared: bool) -> SavedSearch:
    """Under a name of one's own; saving again under it replaces the query. Sharing needs the right to launch.
    Raises Invalid, and QueryError for a query that can't be read."""
    access.require(Right.LAUNCH if shared else Right.VIEW)
    name = " ".join(name.split())
    if not 0 < len(name) <= 80:
        raise Invalid({"name": "A name has 1 to 80 characters."})
    parse(query, timezone.localtime())
    if rows(access, SavedSearch).filter(owner=access.user).exclude(name=name).count() >= MOST:
        raise Invalid({"name": f"{MOST} searches are saved already: delete one first."})
    found, _ = SavedSearch.objects.update_or_create(
        team=access.team, owner=access.user, name=name, defaults={"query": query.strip(), "shared": shared}
    )
    return found


def delete(access: Access, saved_id: uuid.UUID) -> None:
    """One's own; what others share an admin may delete too."""
    found = get(access, SavedSearch, saved_id)
    if found.owner_id != access.user.id:
        if not found.shared:
            get(access, SavedSearch, uuid.UUID(int=0))  # not there, for anybody else
        access.require(Right.MANAGE)
    found.delete()
