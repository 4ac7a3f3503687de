"""People are heard within two seconds, in the middle of a model's answer too: real pulse, real stream, real clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from accounts.access import Access
from runs import commands, leases, tasks
from runs.engine.types import Mode
from runs.models import Run
from runs.samples.simulated.reply import Reply
from tests.flows.conftest import Model, assert_sound, own_connection, told
from tests.flows.shop import LocalShop
from tests.running import advance, launch

SOON_S = 2.0
STALLS = Reply(text="I begin, and then nothing comes for a long time.", stall_after=2, stall_s=60)


@pytest.fixture
def pulse() -> Iterator[None]:
    """The worker's own watch, at its own pace, in a thread of its own."""
    over = threading.Event()

    def beat() -> None:
        with own_connection():
            while not over.wait(0.5):
                leases.watch()

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    over.set()
    thread.join()


def working(run: Run, model: Model, calls: int = 1) -> threading.Thread:
    """A worker that is in the middle of the model's answer, the call of that number, when this returns."""

    def work() -> None:
        with own_connection():
            tasks.advance_run(str(run.id))

    thread = threading.Thread(target=work)
    thread.start()
    model.server.wait_for_calls(calls)
    return thread


@pytest.mark.parametrize(("change", "status"), [(commands.cancel, "cancelled"), (commands.pause, "paused")])
def test_a_run_stops_within_two_seconds_in_mid_stream(
    crew: Access,
    shop: LocalShop,
    model: Model,
    pulse: None,
    change: Callable[[Access, str], Run],
    status: str,
) -> None:
    model.says(STALLS)
    run = launch(crew, Mode.INTERACTIVE)
    worker = working(run, model)
    began = time.monotonic()
    change(crew, str(run.id))
    worker.join(30)
    took = time.monotonic() - began
    run.refresh_from_db()
    assert run.status == status
    assert took < SOON_S, f"it took {took:.1f} s"
    assert_sound(run)


def test_who_paused_in_mid_stream_steers_and_resumes(crew: Access, shop: LocalShop, model: Model, pulse: None) -> None:
    model.says(STALLS)
    run = launch(crew, Mode.INTERACTIVE)
    worker = working(run, model)
    commands.pause(crew, run.id)
    worker.join(30)
    commands.steer(crew, run.id, "Be brief.")
    commands.resume(crew, run.id)
    model.says("Done.")
    run = advance(run)
    assert (run.status, run.result) == ("completed", "Done.")
    assert "Be brief." in told(model.calls[-1])
    assert_sound(run)
