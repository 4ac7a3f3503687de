from __future__ import annotations

from typing import NamedTuple

import pytest
from django.core.cache import cache
from django.test import Client

from accounts.access import Access, access_for_user
from accounts.models import Membership, Team, User
from accounts.schemas import Role


class House(NamedTuple):
    """One team with a person of each role, and another team with an admin of its own."""

    team: Team
    other: Team
    admin: User
    approver: User
    operator: User
    viewer: User
    outsider: User

    def access(self, name: str) -> Access:
        return access_for_user(getattr(self, name))

    def membership(self, name: str) -> Membership:
        return Membership.objects.get(user=getattr(self, name))

    def client(self, name: str) -> Client:
        client = Client()
        if name != "anonymous":
            client.force_login(getattr(self, name), backend="django.contrib.auth.backends.ModelBackend")
        return client


def person(team: Team, username: str, first: str, last: str, role: Role) -> User:
    user = User.objects.create_user(username, f"{username}@harborpine.example", first_name=first, last_name=last)
    Membership.objects.create(team=team, user=user, role=role)
    return user


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    """The rate limits of one test must not stop another."""
    cache.clear()


def build_house() -> House:
    team = Team.objects.create(slug="harborpine", name="Harbor & Pine")
    other = Team.objects.create(slug="elsewhere", name="Elsewhere")
    return House(
        team,
        other,
        admin=person(team, "dana", "Dana", "Okafor", Role.ADMIN),
        approver=person(team, "marco", "Marco", "Ruiz", Role.APPROVER),
        operator=person(team, "ana", "Ana", "Lind", Role.OPERATOR),
        viewer=person(team, "noor", "Noor", "Haddad", Role.VIEWER),
        outsider=person(other, "otto", "Otto", "Brand", Role.ADMIN),
    )


@pytest.fixture
def house(db: None) -> House:
    return build_house()


@pytest.fixture
def shared_house(transactional_db: None) -> House:
    """For tests with threads: its rows are committed."""
    return build_house()
