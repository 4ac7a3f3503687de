"""The product's settings in an environment for tests: a data directory that goes away, a Redis of its own.

Read before any conftest, which is why the environment is set here. DATABASE_URL and REDIS_URL are kept when given.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from agentsite import processes, redis_server

_home = Path(tempfile.mkdtemp(prefix="agentsite-tests-"))
atexit.register(shutil.rmtree, _home, ignore_errors=True)


def _own_redis() -> str:
    """Start a Redis for this test process alone. The guardian kills it when our end of the pipe closes."""
    source = redis_server.find("", _home)
    if source.argv is None:
        return source.url
    guardian = subprocess.Popen(
        [sys.executable, "-I", "-S", processes.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    server = subprocess.Popen(source.argv, stdout=subprocess.DEVNULL, start_new_session=True)
    if guardian.stdin is None or not redis_server.wait_until_listening(source.url):
        raise RuntimeError(f"the tests' Redis does not start: {source.description}")
    guardian.stdin.write(f"+{server.pid}\n")
    guardian.stdin.flush()
    _kept.extend([guardian, server])
    if source.url.startswith("unix://"):
        atexit.register(shutil.rmtree, Path(source.url.removeprefix("unix://")).parent, ignore_errors=True)
    return source.url


def _own_database_number(url: str) -> str:
    """Test processes that share a Redis do not share its keys."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) + 1
    return f"{url.rpartition('/')[0]}/{number}" if url.count("/") == 3 else url


_kept: list[subprocess.Popen[str] | subprocess.Popen[bytes]] = []  # collected, they would warn that they still run

# A developer's key or address must never be used by a test.
for _name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "AGENTSITE_", "OTEL_"))]:
    del os.environ[_name]
for _name in ("ALLOWED_HOSTS", "SECRET_KEY", "EMAIL_URL", "HOST", "PORT"):
    os.environ.pop(_name, None)
os.environ["AGENTSITE_DATA_DIR"] = str(_home)
os.environ["AGENTSITE_SIMULATED_MODEL"] = "1"
os.environ["AGENTSITE_UNDO_SECONDS"] = "0"  # tests of the undo window set it
_given = os.environ.get("REDIS_URL", "")
# A socket is one that our own parent process (pytest-xdist) started: not to be shared.
os.environ["REDIS_URL"] = _own_database_number(_given) if _given.startswith("redis") else _own_redis()

from agentsite.settings import *  # noqa: E402,F403  (after the environment is in place)
from agentsite.settings import DATABASES  # noqa: E402

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # argon2 is slow on purpose
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file: threads and live servers share it, as in production. In memory they would lock each other out.
    DATABASES["default"]["TEST"] = {"NAME": str(_home / "test.sqlite3")}
elif "LOAD_ACTIONS" not in os.environ:  # measurements commit as production does
    # Only a crash of PostgreSQL itself could tell the difference, and no test does that: each of some ten thousand
    # commits would wait for the disk.
    DATABASES["default"]["OPTIONS"] = {"options": "-c synchronous_commit=off"}
