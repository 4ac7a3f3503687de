"""Which client of an endpoint a call gets."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from itertools import count

import pytest

from runs.pools import CALLS_EACH, Pools


@pytest.fixture
def pools() -> Pools[int]:
    return Pools(count().__next__)


def test_calls_one_after_the_other_share_one_client(pools: Pools[int]) -> None:
    for _ in range(3 * CALLS_EACH):
        with pools.client() as client:
            assert client == 0


def test_more_calls_at_once_than_one_client_may_have_get_another(pools: Pools[int]) -> None:
    with ExitStack() as calls:
        used = [calls.enter_context(pools.client()) for _ in range(2 * CALLS_EACH + 1)]
    assert used == [0] * CALLS_EACH + [1] * CALLS_EACH + [2]
    with pools.client() as client:
        assert client == 0


def test_a_call_that_fails_gives_its_place_back(pools: Pools[int]) -> None:
    for _ in range(CALLS_EACH + 1):
        with suppress(ValueError), pools.client():
            raise ValueError
    with pools.client() as client:
        assert client == 0


def test_a_client_that_can_not_be_made_takes_no_place() -> None:
    tries = count()

    def make() -> str:
        if next(tries) == 0:
            raise ValueError("no certificates")
        return "client"

    pools = Pools(make)
    with pytest.raises(ValueError, match="certificates"), pools.client():
        pass
    with pools.client() as client:
        assert client == "client"
