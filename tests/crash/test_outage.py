"""A worker or Redis taken away from a running installation: runs finish by themselves, effects happen once."""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site import JsonObject, Site, running_site, sample_task
from tests.up import eventually

OUTAGE_SECONDS = 10.0
EFFECTS = {"issue_refund": 2, "update_customer": 2, "send_email": 1}

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes through /proc"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("outage")) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    running.model.first_token_s = 0
    running.start_over()
    running.model.first_token_s = 0.3  # a run takes long enough to be caught in the middle
    return running


def reaches(site: Site, run_id: str, seq: int) -> None:
    eventually(lambda: len(site.steps(run_id)) >= seq)


def finishes(site: Site, run_id: str) -> list[JsonObject]:
    """Approves what is asked. The run completes, its journal has no gap, each effect happened once."""
    site.wait(run_id, "waiting")
    site.decide(run_id, "approve")
    return is_whole(site, run_id)


def is_whole(site: Site, run_id: str) -> list[JsonObject]:
    assert site.wait(run_id, "completed")["stop_reason"] == "done"
    steps = site.steps(run_id)
    assert [step["seq"] for step in steps] == list(range(1, len(steps) + 1))
    # A reply that was on its way to a worker that was killed is lost, which the journal says.
    assert all(step["status"] == "ok" or "may have been billed" in step["error"] for step in steps)
    ledger = site.ledger()
    assert Counter(entry["tool"] for entry in ledger) == EFFECTS
    assert len({entry["key"] for entry in ledger}) == len(ledger)
    return steps


def kill(site: Site, words: str, name: str) -> None:
    os.kill(site.up.pid_of(words), signal.SIGKILL)
    site.up.wait_for(rf"^{name} +\| was ended by SIGKILL")


def test_a_worker_that_is_killed_in_the_middle(site: Site) -> None:
    run_id = site.launch()
    reaches(site, run_id, 7)
    kill(site, "celery", "worker")
    site.wait(run_id, "waiting")
    site.decide(run_id, "approve")
    eventually(lambda: len(site.ledger()) >= 2)
    kill(site, "celery", "worker")
    is_whole(site, run_id)


def test_redis_that_hangs_for_ten_seconds(site: Site) -> None:
    site.model.first_token_s = 1.5  # far from its end when Redis stops, however slowly this test looks
    run_id = site.launch()
    reaches(site, run_id, 5)
    redis = site.up.pid_of("redis-server")
    os.kill(redis, signal.SIGSTOP)
    try:
        before = len(site.steps(run_id))
        time.sleep(OUTAGE_SECONDS)
        assert len(site.steps(run_id)) > before, "no step was made without Redis"
    finally:
        os.kill(redis, signal.SIGCONT)
    site.model.first_token_s = 0.3
    finishes(site, run_id)


def test_a_decision_while_redis_hangs(site: Site) -> None:
    site.model.first_token_s = 0  # nothing is caught in the middle here
    run_id = site.parked()
    redis = site.up.pid_of("redis-server")
    os.kill(redis, signal.SIGSTOP)
    try:
        site.decide(run_id, "approve")
    finally:
        os.kill(redis, signal.SIGCONT)
    is_whole(site, run_id)


def test_redis_that_is_killed(site: Site) -> None:
    run_id = site.launch()
    reaches(site, run_id, 5)
    kill(site, "redis-server", "redis")
    finishes(site, run_id)
    eventually(lambda: site.up.get_or_none("/readyz") == 200)


def test_a_doorbell_that_nobody_hears_is_made_good_within_five_seconds(site: Site) -> None:
    """Launched by a program that reaches no Redis: only the row says that there is a run."""
    site.command("run_agent", "nightly-cleanup", sample_task("nightly-cleanup"), REDIS_URL="redis://127.0.0.1:1/0")
    run = site.api("/runs?limit=1")["items"][0]
    eventually(lambda: site.run(run["id"])["started_at"] is not None)
    started, created = (dt.datetime.fromisoformat(site.run(run["id"])[name]) for name in ("started_at", "created_at"))
    assert started - created < dt.timedelta(seconds=5 + 3), "five, and three for a busy machine"
