"""`manage.py up` with all its real processes, on a data directory and a port of its own."""

from __future__ import annotations

import http.client
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 120.0  # generous: test machines are busy, and the duration is not what is tested
MARK = "AGENTSITE_TEST_MARK"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Up:
    """A running `up`: its lines, and every process that carries its mark in the environment."""

    def __init__(self, data_dir: Path, port: int, *options: str, **settings: str) -> None:
        self.data_dir = data_dir
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.mark = uuid.uuid4().hex
        kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
        env = {
            **kept,
            MARK: self.mark,
            "DJANGO_SETTINGS_MODULE": "agentsite.settings",
            "AGENTSITE_DATA_DIR": str(data_dir),
            "AGENTSITE_UNDO_SECONDS": "0",
            "PORT": str(port),
            **settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-u", "manage.py", "up", *options],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.seen: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, pattern: str) -> str:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"no line like {pattern!r} in:\n" + "\n".join(self.seen)
            self.seen.append(line)
            if re.search(pattern, line):
                return line

    def wait_until_ready(self) -> None:
        self.wait_for(rf"^ready http://127\.0\.0\.1:{self.port}$")

    def processes(self) -> dict[int, str]:
        """pid -> command line of everything that lives and was started by this `up`, itself included."""
        found: dict[int, str] = {}
        others: dict[int, tuple[int, str]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes():
                        found[int(entry.name)] = command
                    else:
                        parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                        others[int(entry.name)] = (int(parent), command)
        # Redis writes its title over its environment: known by its parent.
        return found | {pid: command for pid, (parent, command) in others.items() if parent in found}

    def pid_of(self, words: str) -> int:
        (pid,) = [pid for pid, command in self.processes().items() if words in command]
        return pid

    def get(self, path: str) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    def get_or_none(self, path: str) -> int | None:
        try:
            return self.get(path)
        except (OSError, http.client.HTTPException):
            return None

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def say_all(self) -> None:
        """Prints what it has said, for the report of a test that fails."""
        while not self._lines.empty():
            self.seen.append(self._lines.get() or "")
        print("\n".join(self.seen))

    def close(self) -> None:
        self.say_all()
        if self.process.poll() is None:
            with_redis = set(self.processes())  # known by its parent, so only as long as that lives
            self.process.kill()
            self.process.wait()
            # The guardian clears up; killed too soon, it would leave Redis behind.
            eventually(lambda: not any(map(is_alive, with_redis)))
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reader.join(PATIENCE_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
