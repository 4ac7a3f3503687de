"""A worker killed by a real SIGKILL at each recorded step: the run finishes afterwards, each effect happens once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connections

from runs import leases, tasks
from runs.engine.types import Step
from runs.models import Run
from runs.store import DbJournal
from tests.running import (
    NOTE,
    READ,
    REFUND,
    add_agent,
    add_shop,
    decide_all,
    effects,
    launch,
    model,
    team_with_admin,
    tool,
    turns,
    uses,
)

pytestmark = pytest.mark.django_db(transaction=True)

TURNS = turns(
    uses(tool(READ, order="48213")),
    uses(tool(NOTE, customer="C-20871", changes={"notes": "left for a person"})),
    uses(tool(REFUND, order="48213", amount=84.0, reason="dented in transit")),
    "One refund waits.",
    "The refund is done.",
)
# model, read, model, effect, model, queued, model, ask | wait, effect, model, result
RECORDED = 12
MODEL_CALLS = (1, 3, 5, 7, 11)


def in_a_worker(work: Callable[[], None]) -> int:
    """Runs `work` in a process of its own that is gone afterwards; the signal that ended it, 0 for none."""
    connections.close_all()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(ended) or os.WEXITSTATUS(ended) == 0, "the worker failed by itself"
    return os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else 0


def dying_at(seq: int, *, recorded: bool) -> None:
    """From here on this process kills itself when step `seq` is about to be recorded, or has just been."""
    commit = DbJournal._commit

    def commit_and_die(journal: DbJournal, step: Step) -> Step:
        here = journal.run.last_seq + 1 == seq
        if here and not recorded:
            os.kill(os.getpid(), signal.SIGKILL)
        made = commit(journal, step)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    setattr(DbJournal, "_commit", commit_and_die)  # noqa: B010  (a plain assignment hides a type error)


def bring_on(run: Run) -> None:
    """What the next worker does: finds runs whose worker is gone, then advances this one."""
    leases.free_lost()
    assert in_a_worker(lambda: tasks.advance_run(str(run.id))) == 0
    run.refresh_from_db()


@pytest.mark.parametrize("recorded", [False, True], ids=["before the record", "after the record"])
@pytest.mark.parametrize("seq", range(1, RECORDED + 1))
def test_it_finishes_with_each_effect_once(tmp_path: Path, seq: int, recorded: bool) -> None:
    access, shop = team_with_admin(), tmp_path / "shop.sqlite3"
    add_shop(access.team, shop)
    add_agent(access.team)
    with model(TURNS, tmp_path):
        run = launch(access)

        def work_until_killed() -> None:
            dying_at(seq, recorded=recorded)
            tasks.advance_run(str(run.id))

        killed = in_a_worker(work_until_killed)
        if killed:
            bring_on(run)
        run.refresh_from_db()
        assert run.status == "waiting"
        decide_all(run, access.user)
        if not killed:
            killed = in_a_worker(work_until_killed)
        bring_on(run)

    assert killed == signal.SIGKILL, "nothing was killed: this case tests nothing"
    assert (run.status, run.stop_reason) == ("completed", "done")
    assert sorted(effect["tool"] for effect in effects(shop)) == ["issue_refund", "update_customer"]
    steps = list(run.steps.order_by("seq"))
    assert [step.seq for step in steps] == list(range(1, len(steps) + 1))
    cut_off = [step for step in steps if step.key.endswith(":interrupted:1")]
    assert len(cut_off) == (seq in MODEL_CALLS and not recorded)
    assert all(step.status == "error" and "may have been billed" in step.summary for step in cut_off)
    assert len(steps) == RECORDED + len(cut_off)
