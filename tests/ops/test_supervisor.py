"""The supervisor with real, tiny processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentsite import processes
from agentsite.supervisor import Console, Program, Supervisor, reason

LINUX = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes through /proc")
HOLD = "import time; time.sleep(600)"
# A tool server leads a session of its own and may ignore the end of its input.
PARENT_OF_A_DAEMON = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {HOLD!r}], start_new_session=True)
print("daemon", child.pid, flush=True)
time.sleep(600)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-u", "-c", code]


def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def number_after(word: str, text: str) -> int:
    return int(text.partition(word)[2].split()[0])


class Supervised:
    """A supervisor that runs in a thread, and what it printed."""

    def __init__(self, *programs: Program) -> None:
        self._stream = io.StringIO()
        self.supervisor = Supervisor(Console(self._stream), os.environ, Path.cwd())
        for program in programs:
            self.supervisor.start(program)
        self._thread = threading.Thread(target=self.supervisor.run)
        self._thread.start()

    @property
    def output(self) -> str:
        return self._stream.getvalue()

    def stop(self) -> float:
        begun = time.monotonic()
        self.supervisor.request_stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        return time.monotonic() - begun


@pytest.fixture
def supervise() -> Iterator[Callable[..., Supervised]]:
    begun: list[Supervised] = []

    def start(*programs: Program) -> Supervised:
        begun.append(Supervised(*programs))
        return begun[-1]

    yield start
    for supervised in begun:
        supervised.stop()


def test_every_line_is_prefixed_with_its_program(supervise: Callable[..., Supervised]) -> None:
    code = "import sys, time; print('one'); print('two', file=sys.stderr); time.sleep(600)"
    supervised = supervise(Program("web", python(code)))

    eventually(lambda: supervised.output.count("\n") == 2)

    assert sorted(supervised.output.splitlines()) == ["web      | one", "web      | two"]


def test_routine_lines_are_hidden(supervise: Callable[..., Supervised]) -> None:
    code = "import time; print('Redis version=7'); print('out of space'); time.sleep(600)"
    supervised = supervise(Program("redis", python(code), hide="version="))

    eventually(lambda: supervised.output)

    assert supervised.output == "redis    | out of space\n"


def test_a_held_program_waits_for_its_release(supervise: Callable[..., Supervised]) -> None:
    code = "import sys, time; print('loaded'); sys.stdin.read(); print('running'); time.sleep(600)"
    supervised = supervise(Program("web", python(code), held=True))
    eventually(lambda: "loaded" in supervised.output)
    assert "running" not in supervised.output

    supervised.supervisor.release()

    eventually(lambda: "running" in supervised.output)


def test_a_program_that_dies_is_started_again_with_a_line_that_says_why(
    supervise: Callable[..., Supervised], tmp_path: Path
) -> None:
    mark = tmp_path / "first"
    code = f"import pathlib, time; p = pathlib.Path({str(mark)!r})\n"
    code += "if p.exists(): print('again'); time.sleep(600)\np.touch(); raise SystemExit(3)"
    supervised = supervise(Program("worker", python(code)))

    eventually(lambda: "again" in supervised.output)

    assert "worker   | ended with exit code 3; starting it again in 0.5 s" in supervised.output


def test_a_program_that_runs_once_survives_the_death_of_another() -> None:
    supervisor = Supervisor(Console(io.StringIO()), os.environ, Path.cwd())
    lines: list[str] = []
    supervisor.start(Program("worker", python("raise SystemExit(1)")))

    code = supervisor.run_once(python("import time; time.sleep(0.7); print('done'); raise SystemExit(4)"), lines.append)
    supervisor.stop()

    assert (code, lines) == (4, ["done"])


def test_a_program_that_cannot_start_is_tried_again(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise(Program("redis", ["/nonexistent/redis-server"]))

    eventually(lambda: supervised.output.count("starting it again") >= 2)

    assert "could not start" in supervised.output
    assert "in 1 s" in supervised.output, "the delay grows"


def test_stop_ends_programs_and_what_they_started(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise(Program("worker", python(PARENT_OF_A_DAEMON)))
    eventually(lambda: "daemon" in supervised.output)
    daemon = number_after("daemon", supervised.output)

    supervised.stop()

    eventually(lambda: not is_running(daemon))


@LINUX
def test_children_that_were_there_before_the_supervisor_are_left_alone(supervise: Callable[..., Supervised]) -> None:
    with subprocess.Popen(python(HOLD), start_new_session=True) as before:
        supervised = supervise(Program("worker", python("raise SystemExit(1)")))
        eventually(lambda: "ended with exit code 1" in supervised.output)
        supervised.stop()

        assert before.poll() is None
        before.kill()


@LINUX
def test_what_a_dead_program_left_behind_is_ended_too(supervise: Callable[..., Supervised]) -> None:
    code = PARENT_OF_A_DAEMON.replace("time.sleep(600)\n", "raise SystemExit(1)\n")
    supervised = supervise(Program("worker", python(code)))
    eventually(lambda: "ended with exit code 1" in supervised.output)

    eventually(lambda: not is_running(number_after("daemon", supervised.output)))


def test_a_program_that_ignores_the_polite_signal_is_killed(supervise: Callable[..., Supervised]) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)"
    supervised = supervise(Program("worker", python(code), grace_seconds=0.2))
    eventually(lambda: "ready" in supervised.output)

    took = supervised.stop()

    assert "did not stop in time; killed" in supervised.output
    assert took < 5


def test_the_last_ones_are_stopped_after_the_others(supervise: Callable[..., Supervised]) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_): print('bye'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('ready')\n"
        "while True: time.sleep(0.05)"
    )
    supervised = supervise(Program("redis", python(code), last=True), Program("worker", python(code)))
    eventually(lambda: supervised.output.count("ready") == 2)

    supervised.stop()

    lines = supervised.output.splitlines()
    assert lines.index("worker   | bye") < lines.index("redis    | bye")


@LINUX
def test_the_guardian_ends_everything_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from agentsite.supervisor import Console, Program, Supervisor
supervisor = Supervisor(Console(), os.environ, pathlib.Path.cwd())
supervisor.start(Program("worker", {python(PARENT_OF_A_DAEMON)!r}))
supervisor.run()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        daemon = number_after("daemon", process.stdout.readline())
        below = processes.descendants([process.pid])
        assert daemon in below

        process.kill()

    eventually(lambda: not any(is_running(pid) for pid in below))


def test_reasons_are_words() -> None:
    assert reason(1) == "ended with exit code 1"
    assert reason(-signal.SIGTERM) == "was ended by SIGTERM"
    assert "memory" in reason(-signal.SIGKILL)
