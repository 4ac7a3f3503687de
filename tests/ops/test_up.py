"""`manage.py up` with all its real processes, on a data directory and a port of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.up import PATIENCE_SECONDS, Up, eventually, free_port, is_alive

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes through /proc"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    begun: list[Up] = []

    def start_one(port: int | None = None, **settings: str) -> Up:
        begun.append(Up(tmp_path / "data", port or free_port(), **settings))
        return begun[-1]

    yield start_one
    for up in begun:
        up.close()


def test_it_starts_restarts_what_dies_keeps_its_data_and_leaves_nothing_behind(
    start: Callable[..., Up], tmp_path: Path
) -> None:
    up = start()
    link = up.wait_for(r"http://\S+/accounts/link/\S+/")
    up.wait_until_ready()

    assert up.get("/readyz") == 200
    assert up.get(link.rpartition(f":{up.port}")[2].strip()) == 200, "the link leads to a page"
    assert any(re.match(r"redis +\|", line) or "using the Redis" in line or "using Redis" in line for line in up.seen)

    for name, words in {"web": "uvicorn", "worker": "celery"}.items():
        os.kill(up.pid_of(words), signal.SIGKILL)
        up.wait_for(rf"^{name} +\| was ended by SIGKILL.*starting it again")
    eventually(lambda: up.get_or_none("/readyz") == 200)

    second = start(up.port)
    second.wait_for(r"already running on .*Stop it first")
    assert second.process.wait(PATIENCE_SECONDS) == 1

    secret = (tmp_path / "data" / "secret_key").read_text()
    assert up.stop() == 0
    assert up.processes() == {}

    again = start()
    again.wait_until_ready()
    assert (tmp_path / "data" / "secret_key").read_text() == secret
    assert again.stop(signal.SIGHUP) == 0
    assert again.processes() == {}


def test_two_workers_and_nothing_is_left_when_it_is_killed(start: Callable[..., Up]) -> None:
    up = start(AGENTSITE_WORKERS="2")
    up.wait_until_ready()
    all_of_it = up.processes()
    assert sum("celery" in command for command in all_of_it.values()) == 2
    assert any("redis" in command for command in all_of_it.values())

    up.process.kill()
    up.process.wait()

    eventually(lambda: not any(map(is_alive, all_of_it)))
    assert up.processes() == {}


def test_a_taken_port_is_said_before_anything_starts(start: Callable[..., Up]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        up = start(int(taken.getsockname()[1]))

        up.wait_for(r"Cannot listen on 127\.0\.0\.1:\d+: .*PORT=")

        assert up.process.wait(PATIENCE_SECONDS) == 1
    assert not any("redis" in line for line in up.seen)


def test_a_wrong_setting_is_named_and_nothing_goes_on(start: Callable[..., Up]) -> None:
    up = start(AGENTSITE_CONCURRENCY="0")

    up.wait_for(r"AGENTSITE_CONCURRENCY is 0")

    assert up.process.wait(PATIENCE_SECONDS) == 1
    assert up.processes() == {}
