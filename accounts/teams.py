"""What a team sets for all of its runs."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction

from accounts import receipts
from accounts.models import Team, User


def month_budget(team: Team) -> Decimal | None:
    """To the cent, as the form takes it."""
    return None if team.month_budget_usd is None else team.month_budget_usd.quantize(Decimal("0.01"))


def set_month_budget(team: Team, usd: Decimal | None, *, by: User) -> None:
    """Holds from the next reservation on; None means no budget."""
    with transaction.atomic():
        Team.objects.filter(id=team.id).update(month_budget_usd=usd)
        receipts.append(
            team.id,
            "team.budget",
            actor=by,
            subject_type="team",
            subject_id=team.id,
            payload={"month_budget_usd": None if usd is None else str(usd)},
        )
    team.month_budget_usd = usd


# What holds where a team has chosen nothing; `runs.schemas.FiltersIn` is the same for agents.
DEFAULT_FILTERS = {"secrets": "redact", "personal": "redact", "contacts": "off", "instructions": "mark"}


def content_filters(team: Team) -> dict[str, str]:
    return {**DEFAULT_FILTERS, **team.content_filters}


def set_content_filters(team: Team, wanted: dict[str, str], *, by: User) -> None:
    """Holds for every step from now on; what was stored before stays as it is."""
    with transaction.atomic():
        Team.objects.filter(id=team.id).update(content_filters=wanted)
        receipts.append(
            team.id, "team.filters", actor=by, subject_type="team", subject_id=team.id, payload=dict(wanted)
        )
    team.content_filters = wanted


def set_retention(team: Team, days: int | None, *, by: User) -> None:
    """How long ended runs are kept; None means for ever. Workers remove what is older once a day."""
    with transaction.atomic():
        Team.objects.filter(id=team.id).update(retention_days=days)
        receipts.append(
            team.id,
            "team.retention",
            actor=by,
            subject_type="team",
            subject_id=team.id,
            payload={"retention_days": days},
        )
    team.retention_days = days
