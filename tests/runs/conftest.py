from __future__ import annotations

import pytest
from django.core.cache import cache

from runs import commands
from tests.runs.factories import World, make_world


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker listens here, so nobody is rung."""
    cache.clear()
    monkeypatch.setattr(commands, "ring", lambda run_id: None)


@pytest.fixture
def world(db: None) -> World:
    return make_world()
