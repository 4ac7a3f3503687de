from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from runs import doorbell, live
from tests.accounts.together import Race, racing
from tests.approvals import factories
from tests.approvals.factories import World


class Bells:
    """Which doorbells were rung; nothing reaches a broker or a socket."""

    def __init__(self) -> None:
        self.workers: list[uuid.UUID] = []
        self.runs: list[uuid.UUID] = []
        self.inboxes: list[uuid.UUID] = []


@pytest.fixture(autouse=True)
def bells(monkeypatch: pytest.MonkeyPatch) -> Bells:
    rung = Bells()
    monkeypatch.setattr(doorbell, "ring", rung.workers.append)
    monkeypatch.setattr(live, "ring", lambda run_id, seq: rung.runs.append(run_id))
    monkeypatch.setattr(live, "ring_inbox", rung.inboxes.append)
    return rung


@pytest.fixture
def world(db: None) -> World:
    return factories.make_world()


@pytest.fixture
def shared_world(transactional_db: None) -> World:
    """For tests with threads: its rows are committed."""
    return factories.make_world()


@pytest.fixture
def race(transactional_db: None) -> Iterator[Race]:
    """For up to four at the same moment, as often as one likes."""
    with racing(4) as race:
        yield race
