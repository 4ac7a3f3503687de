"""The shapes of `/grants`: standing permissions, for whoever mounts them."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal

from django.db.models import Q
from django.utils import timezone
from pydantic import Field

from accounts.access import Access, get
from approvals import grants
from approvals.api import rfc3339
from approvals.models import StandingGrant
from approvals.schemas import MatcherIn
from runs import previews
from runs.api.paging import page
from runs.errors import Conflict
from runs.schemas import Strict

State = Literal["standing", "ended", "all"]
SHOWN = 200


class GrantIn(Strict):
    """`action` is one that the caller approved. Each of its arguments needs a matcher; `value` limits the sum of the
    number `value_argument` over all uses."""

    action: uuid.UUID
    matchers: Annotated[list[MatcherIn], Field(min_length=1, max_length=100)]
    uses: int = 5
    days: int = 7
    value_argument: Annotated[str, Field(max_length=200)] | None = None
    value: Annotated[Decimal, Field(max_digits=18, decimal_places=6)] | None = None

    def wish(self) -> grants.Wish:
        return grants.Wish(
            matchers=tuple(self.matchers),
            uses=self.uses,
            days=self.days,
            value_argument=self.value_argument or "",
            value=self.value,
        )


def list_grants(access: Access, state: State, limit: int, cursor: str | None) -> dict[str, Any]:
    """`{items: [Grant], next}`, newest first. Raises Invalid for a cursor."""
    stands = Q(revoked_at__isnull=True, expires_at__gt=timezone.now(), uses_left__gt=0)
    found = grants.listed(access)
    if state != "all":
        found = found.filter(stands if state == "standing" else ~stands)
    items, following = page(found, limit, cursor)
    return {"items": [grant_json(grant) for grant in items], "next": following}


def give_json(access: Access, payload: GrantIn) -> dict[str, Any]:
    """Raises Http404, MissingRight, Invalid by field, Conflict where one may not be given for this action."""
    return grant_json(grants.give(access, payload.action, payload.wish()))


def preview_json(access: Access, payload: GrantIn) -> dict[str, Any]:
    """What it would have covered of the last 30 days. Gives nothing. Raises as `give_json`."""
    action = grants.origin(access, payload.action)
    grants.check(action, payload.wish())
    seen = grants.preview(action, payload.wish())
    return {
        "asked": seen.asked,
        "covered": len(seen.covered),
        "rejected": seen.rejected,
        "value": _number(seen.value),
        "complete": not seen.is_cut,
        "actions": [
            {
                "id": str(each.id),
                "run": str(each.run_id),
                "title": previews.title_of(each),
                "status": each.status,
                "created_at": rfc3339(each.created_at),
            }
            for each in seen.covered[:SHOWN]
        ],
    }


def revoke_json(access: Access, grant_id: uuid.UUID | str) -> dict[str, Any]:
    if not grants.revoke(access, grant_id):
        raise Conflict("It was revoked already.", status="revoked")
    return grant_json(get(access, grants.listed(access), grant_id))


def grant_json(grant: StandingGrant) -> dict[str, Any]:
    """`uses` and `value` are what was given, `uses_left` and `value_left` what is left of it."""
    return {
        "id": str(grant.id),
        "status": status_of(grant, timezone.now()),
        "agent": grant.agent.slug,
        "tool": grant.tool,
        "tool_version": grant.tool_version,
        "matchers": grant.matchers,
        "max_risk": grant.max_risk,
        "uses": grant.uses_most,
        "uses_left": grant.uses_left,
        "value_argument": grant.value_argument or None,
        "value": _number(grant.value_most),
        "value_left": _number(grant.value_left),
        "action": str(grant.born_of_id) if grant.born_of_id else None,
        "created_by": grant.created_by.username,
        "created_at": rfc3339(grant.created_at),
        "expires_at": rfc3339(grant.expires_at),
        "revoked_by": grant.revoked_by.username if grant.revoked_by else None,
        "revoked_at": rfc3339(grant.revoked_at),
    }


def status_of(grant: StandingGrant, now: dt.datetime) -> str:
    if grant.revoked_at is not None:
        return "revoked"
    if grant.uses_left < 1:
        return "used_up"
    return "standing" if grant.expires_at > now else "expired"


def _number(value: Decimal | None) -> str | None:
    """Plain digits without an exponent, and no zeros at the end."""
    if value is None:
        return None
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
