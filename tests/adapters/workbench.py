"""Starting, stopping and calling the server of servers/workshop.py."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs.engine.types import ToolResult
from runs.schemas import ServerConfig
from runs.tools.mcp import McpTool, ServerPool

SERVERS = Path(__file__).parent / "servers"
ROOT = Path(__file__).parents[2]
DEADLINE_S = 20.0


def until(fact: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not fact():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether any thread is left: the first may be a zombie while others still hold the pipes open."""
    states = []
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.append(task.read_text().rpartition(")")[2].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return any(state not in "ZX" for state in states)


def stdio(log: Path, *options: str, **env: str) -> ServerConfig:
    command = [sys.executable, str(SERVERS / "workshop.py"), "--log", str(log), *options]
    return ServerConfig(transport="stdio", command=command, env=env)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HttpServer:
    """The workshop over HTTP, which can be taken down and started again at the same address."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.config = ServerConfig(transport="http", url=f"http://127.0.0.1:{self.port}/mcp", headers={"x-team": "a"})
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        self.stop()
        command = [sys.executable, str(SERVERS / "workshop.py"), "--log", str(self._log), "--http", str(self.port)]
        self._process = subprocess.Popen([*command, *options])
        until(self._answers)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Workshop:
    tools: dict[str, McpTool]
    log: Path
    pool: ServerPool

    def call(
        self, name: str, args: dict[str, Any] | None = None, *, key: str = "", timeout_s: float = 10
    ) -> ToolResult:
        return self.tools[f"workshop.{name}"].execute(args or {}, idempotency_key=key, timeout_s=timeout_s)

    def pid(self) -> int:
        return int(self.call("whoami").content["pid"])

    def noted(self, key: str = "") -> list[str]:
        """What was done under keys that end with `key`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [note["what"] for note in map(json.loads, lines) if str(note["key"]).endswith(key)]
