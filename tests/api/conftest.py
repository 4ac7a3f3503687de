from __future__ import annotations

from collections.abc import Callable

import pytest

from accounts.models import User
from accounts.schemas import Scope
from accounts.tokens import create_token
from runs import live
from tests.api.client import Caller
from tests.approvals import factories
from tests.approvals.factories import World

As = Callable[..., Caller]


@pytest.fixture(autouse=True)
def no_bells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.doorbell.current_app.send_task", lambda *_: None)
    monkeypatch.setattr(live, "_quietly", lambda _: None)


@pytest.fixture
def world(db: None) -> World:
    return factories.make_world()


@pytest.fixture
def shared_world(transactional_db: None) -> World:
    """For tests with threads: its rows are committed."""
    return factories.make_world()


def caller_for(world: World, who: str, scopes: list[Scope] | None = None) -> Caller:
    user: User = world.outsider if who == "outsider" else world.people[who]
    membership = user.memberships.select_related("team").get()
    _, raw = create_token(user, membership.team, name="a program", scopes=scopes)
    return Caller(raw)


@pytest.fixture
def as_(world: World) -> As:
    """A caller with a real token: of a role, of the outsider (admin elsewhere), or without any (`nobody`)."""

    def make(who: str, *scopes: Scope) -> Caller:
        return Caller(None) if who == "nobody" else caller_for(world, who, list(scopes) or None)

    return make
