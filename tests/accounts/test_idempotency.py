from __future__ import annotations

import datetime as dt
import threading

import pytest
from django.utils import timezone

from accounts.idempotency import Answer, IdempotencyConflict, IdempotencyInProgress, replay_or_run
from accounts.models import IdempotentRequest
from tests.accounts.conftest import House
from tests.accounts.together import together

ROUTE = "POST /runs"


class Work:
    """Counts how often it was done."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self) -> Answer:
        self.done += 1
        return 201, {"n": self.done}


def test_the_same_request_gets_the_same_answer_and_runs_once(house: House) -> None:
    access, work = house.access("operator"), Work()
    first = replay_or_run(access, "k1", ROUTE, {"a": 1, "b": 2}, work)
    second = replay_or_run(access, "k1", ROUTE, {"b": 2, "a": 1}, work)
    assert first == (201, {"n": 1}, False)
    assert second == (201, {"n": 1}, True)
    assert work.done == 1


@pytest.mark.parametrize(("route", "body"), [(ROUTE, b"other"), ("POST /else", b"body")])
def test_the_same_key_for_another_request_is_a_conflict(house: House, route: str, body: bytes) -> None:
    access, work = house.access("operator"), Work()
    replay_or_run(access, "k1", ROUTE, b"body", work)
    with pytest.raises(IdempotencyConflict):
        replay_or_run(access, "k1", route, body, work)
    assert work.done == 1


def test_keys_of_other_people_and_teams_are_their_own(house: House) -> None:
    work = Work()
    for name in ("operator", "approver", "outsider"):
        assert replay_or_run(house.access(name), "k1", ROUTE, b"", work)[2] is False
    assert work.done == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "a\x00"])
def test_a_key_that_cannot_be_one_is_refused(house: House, key: str) -> None:
    with pytest.raises(ValueError, match="Idempotency-Key"):
        replay_or_run(house.access("operator"), key, ROUTE, b"", Work())


def test_a_failure_frees_the_key(house: House) -> None:
    access = house.access("operator")

    def fail() -> Answer:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        replay_or_run(access, "k1", ROUTE, b"", fail)
    assert replay_or_run(access, "k1", ROUTE, b"", Work()) == (201, {"n": 1}, False)


def test_a_crashed_claim_can_be_taken_over_after_a_minute(house: House) -> None:
    access, work = house.access("operator"), Work()

    def crash() -> Answer:
        """Looks like a process that died: the claim stays."""
        row = IdempotentRequest.objects.get()
        IdempotentRequest.objects.filter(id=row.id).update(claimed_at=row.claimed_at - dt.timedelta(seconds=1))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        replay_or_run(access, "k1", ROUTE, b"", crash)
    with pytest.raises(IdempotencyInProgress):
        replay_or_run(access, "k1", ROUTE, b"", work)
    IdempotentRequest.objects.update(claimed_at=timezone.now() - dt.timedelta(seconds=61))
    assert replay_or_run(access, "k1", ROUTE, b"", work) == (201, {"n": 1}, False)
    assert replay_or_run(access, "k1", ROUTE, b"", work) == (201, {"n": 1}, True)


def test_the_claim_is_committed_before_the_work_begins(shared_house: House) -> None:
    access, seen = shared_house.access("operator"), []

    def produce() -> Answer:
        seen.extend(together([lambda: IdempotentRequest.objects.filter(status_code__isnull=True).count()]))
        return 200, None

    replay_or_run(access, "k1", ROUTE, b"", produce)
    assert seen == [1]


def test_of_concurrent_requests_one_works(shared_house: House) -> None:
    access, work, others_refused = shared_house.access("operator"), Work(), threading.Event()

    def slow() -> Answer:
        assert others_refused.wait(20)
        return work()

    refused = threading.Semaphore(0)

    def send() -> tuple[int, object, bool] | None:
        try:
            return replay_or_run(access, "k1", ROUTE, b"", slow)
        except IdempotencyInProgress:
            refused.release()
            return None

    def release_the_winner() -> None:
        try:
            for _ in range(4):
                assert refused.acquire(timeout=20)
        finally:
            others_refused.set()

    results = together([release_the_winner, *[send for _ in range(5)]])
    assert [result for result in results if result is not None] == [(201, {"n": 1}, False)]
    assert work.done == 1
    assert replay_or_run(access, "k1", ROUTE, b"", slow) == (201, {"n": 1}, True)
