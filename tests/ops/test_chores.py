"""What a worker process does beside its tasks."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from agentsite import chores


@pytest.fixture(autouse=True)
def nothing_stays_frozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_full_collections_do_not_look_through_what_a_worker_has_imported() -> None:
    assert gc.get_freeze_count() == 0
    chores.warm_up()
    assert gc.get_freeze_count() > len(gc.get_objects())
