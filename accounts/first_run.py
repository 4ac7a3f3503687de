from __future__ import annotations

from typing import NamedTuple

from django.db import transaction

from accounts.models import Membership, Team, User
from accounts.schemas import Role

USERNAME = "admin"
TEAM = "default"


class FirstRun(NamedTuple):
    user: User
    team: Team
    created: bool


def ensure_first_run() -> FirstRun:
    """The user `admin` in the team `default`. A role that was taken away later is not given back."""
    with transaction.atomic():
        user, new_user = User.objects.get_or_create(username=USERNAME)
        if new_user:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        team, new_team = Team.objects.get_or_create(slug=TEAM, defaults={"name": "Default"})
        if new_user or new_team:
            Membership.objects.get_or_create(user=user, team=team, defaults={"role": Role.ADMIN})
    return FirstRun(user, team, new_user or new_team)
