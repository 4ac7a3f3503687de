from __future__ import annotations

import fcntl
import http.client
import os
import socket
import sys
import threading
import time
from argparse import ArgumentParser
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from agentsite import redis_server
from agentsite.preparation import LINK
from agentsite.supervisor import Console, Program, Supervisor

SLOW_START_SECONDS = 15.0
# Celery spreads this over ten lines; `up` says it in one.
ROOT_WARNING = r"SecurityWarning|absolutely not rec|specify a different user|User information: uid|_warn_or_raise|^\s*$"

DESCRIPTION = """Start everything agentsite needs on this machine and keep it running: Redis, workers, web, and the
simulated model when no real one is configured. Prepares the database first. Ctrl-C stops every process it started."""
EPILOG = """Exit codes: 0 stopped on request; 1 could not start (the reason is printed); 2 wrong arguments.
Environment: PORT, HOST, and the settings listed in README.md."""


class Command(BaseCommand):
    help = f"{DESCRIPTION} {EPILOG}"
    requires_system_checks = []  # `agentsite.preparation` asks those that depend on the environment

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port to listen on (default: %(default)s)")
        parser.add_argument(
            "--pace", type=float, default=40.0, help="tokens a second of the simulated model; 0: no wait"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        lock = claim_data_directory(settings.DATA_DIR, f"http://{printable(host)}:{port}")
        with closing(lock):
            refuse_taken_port(host, port)
            Installation(host, port, Console(sys.stdout), options["pace"]).run()


class Installation:
    """One data directory, served at one address."""

    def __init__(self, host: str, port: int, console: Console, pace: float) -> None:
        self.host, self.port, self.console, self.pace = host, port, console, pace
        self.url = f"http://{printable(host)}:{port}"
        self.redis = redis_server.find(settings.REDIS_URL if settings.REDIS_URL_IS_GIVEN else "", settings.DATA_DIR)
        self.supervisor = Supervisor(console, child_environment(host, port), settings.BASE_DIR)

    def run(self) -> None:
        self.supervisor.catch_signals()
        try:
            self.start()
        except BaseException:
            self.supervisor.stop()
            raise
        self.supervisor.run()
        redis_server.clean_up(self.redis)
        self.note("stopped")

    def start(self) -> None:
        if os.getuid() == 0:
            self.note("running as root: a user of its own is safer, because tools run as this user too")
        self.start_redis(self.redis)
        self.start_simulated_model()
        for program in [*workers(), web(self.host, self.port)]:
            self.supervisor.start(program)
        sign_in_path = self.prepare_data()
        if self.redis.argv and not redis_server.wait_until_listening(self.redis.url):
            self.note("Redis does not answer yet; going on without it")
        self.supervisor.release()
        threading.Thread(target=self.announce_when_ready, args=(sign_in_path,), name="ready", daemon=True).start()

    def start_redis(self, source: redis_server.RedisSource) -> None:
        self.note(f"using {source.description}")
        if source.warning:
            self.note(f"WARNING: {source.warning}")
        write_private(settings.DATA_DIR / "redis.url", source.url)
        self.supervisor.update_env({"REDIS_URL": source.url})
        if source.argv:
            self.supervisor.start(Program("redis", source.argv, last=True, hide=redis_server.ROUTINE))

    def start_simulated_model(self) -> None:
        if not settings.SIMULATED:
            return
        forced = settings.AGENTSITE_SIMULATED_MODEL
        why = "AGENTSITE_SIMULATED_MODEL is set" if forced else "no ANTHROPIC_API_KEY, no ANTHROPIC_BASE_URL"
        self.note(f"{why}: agents get a simulated model")
        port_file: Path = settings.SIMULATED_MODEL_PORT_FILE
        port_file.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "runs.samples.simulated", "--port", "0", "--port-file", str(port_file)]
        argv += ["--pace", str(self.pace), "--first-token", "0" if self.pace == 0 else "0.25"]
        self.supervisor.start(Program("model", argv, last=True))

    def prepare_data(self) -> str:
        """The path of a one-time sign-in link; empty when a stop was asked for meanwhile."""
        link = ""

        def read(line: str) -> None:
            nonlocal link
            if line.startswith(LINK):
                link = line.removeprefix(LINK)
            else:
                self.note(line)

        code = self.supervisor.run_once([sys.executable, "-m", "agentsite.preparation"], read)
        if code and not self.supervisor.stopping:
            raise CommandError(f"The database could not be prepared (exit code {code}); the reason is above.")
        return link

    def announce_when_ready(self, sign_in_path: str) -> None:
        """Print the sign-in link and `ready URL` once the site can do its work, or what is missing if it takes long."""
        complain_at = time.monotonic() + SLOW_START_SECONDS
        while not self.supervisor.stopping:
            status, body = self.ask_readyz()
            if status == 200:
                break
            if time.monotonic() >= complain_at:
                self.note(f"not ready yet: {body or 'the web process does not answer'}")
                complain_at += SLOW_START_SECONDS
            time.sleep(0.05)
        else:
            return
        self.console.plain(f"sign in as admin (works once, for 10 minutes): {self.address_for_people()}{sign_in_path}")
        self.console.plain(f"ready {self.url}")

    def address_for_people(self) -> str:
        """Where a link of ours is let in: this address, or the site's own name, which is served over HTTPS."""
        here = {printable(self.host), "*"} & set(settings.ALLOWED_HOSTS)
        return self.url if here else f"https://{accepted_host()}"

    def ask_readyz(self) -> tuple[int, str]:
        connection = http.client.HTTPConnection(connectable(self.host), self.port, timeout=3)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz", headers={"Host": accepted_host()})
            answer = connection.getresponse()
            return answer.status, answer.read(2000).decode("utf-8", "replace")
        return 0, ""

    def note(self, text: str) -> None:
        self.console.line("up", text)


def workers() -> list[Program]:
    # No gossip, mingle or event heartbeat: workers never talk to each other, the database says who lives.
    quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    count = settings.AGENTSITE_WORKERS
    return [
        Program(
            "worker" if count == 1 else f"worker{number}",
            [
                *held("celery", "agentsite.celery", "agentsite.chores", "celery.bin.celery"),
                *("--app", "agentsite", "--quiet", "worker", "--pool", "threads"),
                *("--concurrency", str(settings.AGENTSITE_CONCURRENCY), "--hostname", f"worker{number}@%h", *quiet),
            ],
            held=True,
            hide=ROOT_WARNING,
        )
        for number in range(1, count + 1)
    ]


def web(host: str, port: int) -> Program:
    argv = [
        *held("uvicorn", "agentsite.asgi", "agentsite.urls"),
        *("agentsite.asgi:application", "--host", host, "--port", str(port)),
        # Open sockets get close code 1012 (come back) at SIGTERM; requests get three seconds to finish.
        *("--lifespan", "off", "--timeout-graceful-shutdown", "3", "--log-level", "warning", "--no-access-log"),
    ]
    return Program("web", argv, held=True)


def held(program: str, *modules: str) -> list[str]:
    """The beginning of a command line that loads `modules` while the database is being prepared."""
    loads = [part for module in modules for part in ("--load", module)]
    return [sys.executable, "-m", "agentsite.held", *loads, "--", program]


def child_environment(host: str, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "AGENTSITE_DATA_DIR": str(settings.DATA_DIR),
        "HOST": host,
        "PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        "CELERY_SKIP_CHECKS": "1",  # asked once, by the preparation; a worker would load every page for them
        "MALLOC_ARENA_MAX": "2",  # many threads, few of them busy: without it glibc keeps an arena for each
    }


def claim_data_directory(data_dir: Path, url: str) -> IO[str]:
    """Two sets of processes would fight over it. The lock goes with the process, however that ends."""
    lock = open(data_dir / "up.lock", "a+", encoding="utf-8")  # noqa: SIM115  (held for as long as we run)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise CommandError(
            f"agentsite is already running on {data_dir} ({holder}). Stop it first, or set AGENTSITE_DATA_DIR."
        ) from None
    lock.truncate(0)
    lock.write(f"pid {os.getpid()}, {url}")
    lock.flush()
    return lock


def refuse_taken_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the web server does
            probe.bind(address)
    except (OSError, OverflowError) as error:
        raise CommandError(f"Cannot listen on {host}:{port}: {error}. Choose another with PORT= or HOST=.") from None


def write_private(path: Path, text: str) -> None:
    """Only for the owner's eyes: the URL may hold a password."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def printable(host: str) -> str:
    """The host as it stands in a URL that a person can open on this machine."""
    host = connectable(host)
    return f"[{host}]" if ":" in host else host


def connectable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared, not bound)


def accepted_host() -> str:
    """A Host header that ALLOWED_HOSTS lets through."""
    first = str(settings.ALLOWED_HOSTS[0])
    return "localhost" if first == "*" else first.lstrip(".")
