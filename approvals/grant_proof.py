"""Whether standing grants are what they were given as: a row that was widened in the database would let calls run of
which no person ever heard."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from django.db.models import Count, QuerySet

from accounts import receipts
from accounts.models import Receipt, Team
from accounts.receipts import Problem
from approvals.grant_models import StandingGrant
from runs import audit

GIVEN, REVOKED = "grant.given", "grant.revoked"
FACTS = (
    *("team_id", "agent_id", "tool", "tool_version", "matchers", "max_risk", "uses_most", "value_argument"),
    *("value_most", "created_by_id", "created_at", "expires_at"),
)
"""What never changes once it is given. `born_of` goes with a pruned run."""


def facts_digest(grant: StandingGrant) -> str:
    """Of a row as the database gave it back."""
    return audit.digest_of_columns(grant, FACTS)


def is_as_given(grant: StandingGrant) -> bool:
    """The last look before a use: one that was widened, made up or revived covers nothing."""
    said = {receipt.kind: receipt for receipt in _receipts(grant.team_id).filter(subject_id=str(grant.id))}
    given = said.get(GIVEN)
    if given is None or REVOKED in said or not receipts.is_in_place(given):
        return False
    (now,) = _with_uses().filter(id=grant.id)
    return given.payload.get("facts") == facts_digest(now) and _adds_up(now)


def problems(team: Team) -> Iterator[Problem]:
    said: dict[str, dict[str, Receipt]] = {}
    for receipt in _receipts(team.id):
        said.setdefault(receipt.subject_id, {})[receipt.kind] = receipt
    for grant in _with_uses().filter(team=team):
        known = said.get(str(grant.id), {})
        what = f"the standing permission {grant.id}"
        if GIVEN not in known:
            yield Problem(0, "unrecorded", f"{what} is in the database, and no receipt says who gave it")
        elif known[GIVEN].payload.get("facts") != facts_digest(grant):
            yield Problem(known[GIVEN].seq, "changed", f"{what} is not what was given")
        elif not _adds_up(grant):
            yield Problem(known[GIVEN].seq, "changed", f"{what} has more uses left than it can have")
        elif REVOKED in known and grant.revoked_at is None:
            yield Problem(known[REVOKED].seq, "changed", f"{what} stands again, though it was taken back")


def _with_uses() -> QuerySet[StandingGrant]:
    """Row and count in one statement, for both change together."""
    return StandingGrant.objects.annotate(used=Count("uses"))


def _adds_up(grant: StandingGrant) -> bool:
    """Uses of a pruned run are gone, so fewer may be left than there could be."""
    used: int = grant.used  # type: ignore[attr-defined]
    return grant.uses_left <= grant.uses_most - used


def _receipts(team_id: uuid.UUID) -> QuerySet[Receipt]:
    return Receipt.objects.filter(team_id=team_id, subject_type="grant").order_by("seq")
