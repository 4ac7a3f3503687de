"""Of the many runs that a worker process holds few are at work: who waits, in which order, on whose connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from django.db import connection, connections, transaction
from django.test import override_settings

from accounts.access import Access
from accounts.ids import new_id
from runs import leases, slots, tasks, worker
from runs.engine.types import Mode
from runs.models import Run
from runs.samples.simulated.reply import JsonObject, Reply
from runs.slots import Slots
from tests import running
from tests.up import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def one() -> Iterator[Slots]:
    """One slot for all threads of this test."""
    made = Slots(1)
    yield made
    for slot in made.free:
        slot.connection.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def crew() -> Access:
    access = running.team_with_admin()
    running.add_agent(access.team, "clock", tools=[{"name": "time.now", "policy": "auto"}])
    return access


class Line:
    """Threads that wait for the one slot, in the order in which they came."""

    def __init__(self, one: Slots, pool: ThreadPoolExecutor) -> None:
        self.one = one
        self.pool = pool
        self.served: list[str] = []
        self.threads: dict[str, int] = {}
        self.done: list[Future[None]] = []

    def joins(self, name: str) -> None:
        before = len(self.one.waiting)
        self.done.append(self.pool.submit(self._serve, name))
        eventually(lambda: len(self.one.waiting) > before)

    def _serve(self, name: str) -> None:
        self.threads[name] = threading.get_ident()
        with self.one.held():
            self.served.append(name)

    def ends(self) -> list[str]:
        for each in self.done:
            each.result(30)
        return self.served


def test_slots_are_given_in_the_order_in_which_they_were_asked_for(one: Slots, pool: ThreadPoolExecutor) -> None:
    line = Line(one, pool)
    with one.held():
        for name in "abc":
            line.joins(name)
    assert line.ends() == ["a", "b", "c"]


def test_whom_a_person_wants_to_stop_is_the_next(one: Slots, pool: ThreadPoolExecutor) -> None:
    line = Line(one, pool)
    with one.held():
        for name in "abc":
            line.joins(name)
        one.hurry(line.threads["c"])
        one.hurry(threading.get_ident())  # waits for nothing
    assert line.ends() == ["c", "a", "b"]


def test_a_stopped_lease_hurries_its_thread(
    one: Slots, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_of_this_process", [one])
    line = Line(one, pool)
    run = new_id()
    with one.held():
        line.joins("a")
        line.joins("b")
        leases.Lease(run_id=run, owner="me", thread=line.threads["b"]).stop()
    assert line.ends() == ["b", "a"]


def test_while_one_waits_for_something_else_another_works(one: Slots, pool: ThreadPoolExecutor) -> None:
    def work() -> str:
        with one.held():
            return "done"

    with one.held(), one.released():
        assert pool.submit(work).result(30) == "done"


def test_who_was_interrupted_is_served_first(one: Slots, pool: ThreadPoolExecutor) -> None:
    line, interrupted, enters = Line(one, pool), threading.Event(), threading.Event()

    def call() -> None:
        with one.held():
            with suppress(ZeroDivisionError), one.released():
                enters.set()
                interrupted.wait(30)
                raise ZeroDivisionError
            line.served.append("interrupted")

    line.done.append(pool.submit(call))
    assert enters.wait(30)
    with one.held():
        line.joins("a")
        interrupted.set()
        eventually(lambda: len(one.waiting) == 2)
    assert line.ends() == ["interrupted", "a"]


def test_nothing_is_waited_for_inside_a_transaction(one: Slots) -> None:
    with one.held():
        with transaction.atomic(), pytest.raises(RuntimeError), one.released():
            pass
        assert Run.objects.count() == 0


def test_a_slot_is_a_connection_that_stays(one: Slots, pool: ThreadPoolExecutor) -> None:
    def used() -> tuple[int, bool]:
        with one.held():
            was_open = connection.connection is not None
            Run.objects.count()
            return id(connections["default"]), was_open

    first, again = pool.submit(used).result(30), pool.submit(used).result(30)
    assert (first[0], again[1]) == (again[0], True)


def test_a_connection_that_broke_is_not_handed_on(one: Slots) -> None:
    with one.held():
        Run.objects.count()
        connection.errors_occurred = True
    assert [slot.connection.connection for slot in one.free] == [None]


def test_what_is_asked_during_a_wait_has_a_connection_of_its_own(one: Slots, pool: ThreadPoolExecutor) -> None:
    def waits() -> bool:
        with one.held():
            with one.released():
                Run.objects.count()
                own = connections["default"]
            return own.connection is None and connections["default"] is not own

    assert pool.submit(waits).result(30)


def test_outside_a_run_nothing_is_held(one: Slots) -> None:
    with one.released():
        pass
    assert (len(one.free), one.runs) == (1, 0)


# --- whole runs ------------------------------------------------------------------------------------------------------


def answers_together(number: int) -> Callable[[JsonObject], Reply]:
    """No call is answered before so many are being made."""
    all_here = threading.Barrier(number)

    def respond(body: JsonObject) -> Reply:
        all_here.wait(30)
        return Reply(text="Done.")

    return respond


def test_runs_wait_for_their_models_side_by_side_with_one_slot(
    one: Slots, pool: ThreadPoolExecutor, crew: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_of_this_process", [one])
    runs = [running.launch(crew, Mode.INTERACTIVE, "Say so.", agent="clock").id for _ in range(4)]
    with running.model(answers_together(4), tmp_path):
        for each in [pool.submit(tasks.advance_run, str(run)) for run in runs]:
            each.result(60)
    assert set(Run.objects.values_list("status", "result")) == {("completed", "Done.")}
    assert one.runs == 0


@override_settings(AGENTSITE_CONCURRENCY=2)
def test_a_worker_that_is_full_rings_for_nobody(one: Slots, crew: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    rung: list[object] = []
    monkeypatch.setattr(slots, "_of_this_process", [one])
    monkeypatch.setattr(worker, "ring", rung.append)
    for _ in range(3):
        running.launch(crew, Mode.INTERACTIVE, "Wait.", agent="clock")
    Run.objects.update(created_at="2026-01-01T00:00:00Z", rung_at=None)
    with one.held():
        worker.sweep()
        assert len(rung) == 1  # one of two places is taken
        one.runs = 2
        worker.sweep()
        assert len(rung) == 1
        one.runs = 1
