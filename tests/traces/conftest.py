from __future__ import annotations

import pytest

from accounts.models import Team, User
from runs.models import Agent
from tests.traces import factories


@pytest.fixture
def team(db: None) -> Team:
    return factories.make_team()


@pytest.fixture
def dana(team: Team) -> User:
    return factories.make_user(team)


@pytest.fixture
def agent(team: Team) -> Agent:
    return factories.make_agent(team)
