from __future__ import annotations

import json
import platform
import shutil
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.management.base import BaseCommand
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from agentsite import checks, health

OLDEST_PYTHON = (3, 11)
LEAST_FREE_BYTES = 500 * 1024**2
START = "Start it with `make run`."

Outcome = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Finding:
    """`missing` makes the command fail; `warning` is worth knowing."""

    name: str
    outcome: Outcome
    detail: str
    fix: str = ""


class Command(BaseCommand):
    help = (
        "Say what is missing or misconfigured, and how to put it right. Exit code 1 when something required is missing."
    )
    requires_system_checks = []  # it runs them itself, and reports instead of stopping

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the findings as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = examine()
        healthy = all(finding.outcome != "missing" for finding in findings)
        if options["json"]:
            self.stdout.write(
                json.dumps({"ok": healthy, "checks": [asdict(finding) for finding in findings]}, indent=2)
            )
        else:
            for finding in findings:
                self.stdout.write(line(finding))
            self.stdout.write("Everything required is there." if healthy else "Something required is missing.")
        if not healthy:
            sys.exit(1)


def line(finding: Finding) -> str:
    text = f"{finding.outcome:<8} {finding.name:<14} {finding.detail}"
    return f"{text}\n{'':<24}fix: {finding.fix}" if finding.fix and finding.outcome != "ok" else text


def examine() -> list[Finding]:
    return [*(check() for check in CHECKS), *system_checks()]


def python() -> Finding:
    outcome: Outcome = "ok" if sys.version_info >= OLDEST_PYTHON else "missing"
    return Finding(
        "python", outcome, platform.python_version(), "Install Python 3.11 and run `make run PYTHON=python3.11`."
    )


def database() -> Finding:
    vendor = connection.vendor
    if problem := health.database_problem():
        return Finding("database", "missing", f"{vendor}: {problem}", "Check DATABASE_URL, and that its server runs.")
    executor = MigrationExecutor(connection)
    waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if waiting:
        fix = "Run `python manage.py migrate` (`make run` does it)."
        return Finding("database", "missing", f"{vendor}: {len(waiting)} migrations have not been applied", fix)
    return Finding("database", "ok", f"{vendor}, all migrations applied")


def redis() -> Finding:
    problem = health.redis_problem()
    fix = f"{START} With a Redis of your own, check REDIS_URL."
    return Finding("redis", "missing" if problem else "ok", problem or "answers", fix)


def worker() -> Finding:
    problem = health.worker_problem()
    return Finding("worker", "missing" if problem else "ok", problem or "reported within 15 seconds", START)


def model() -> Finding:
    if settings.SIMULATED:
        fix = "Set ANTHROPIC_API_KEY, or ANTHROPIC_BASE_URL for another server that speaks the Messages API."
        return Finding("model", "warning", "simulated: answers are made up", fix)
    where = settings.ANTHROPIC_BASE_URL or "the Claude API"
    key = "with a key" if settings.ANTHROPIC_API_KEY else "without a key"
    return Finding("model", "ok", f"{settings.AGENTSITE_MODEL} at {where}, {key}")


def disk() -> Finding:
    free = shutil.disk_usage(settings.DATA_DIR).free
    detail = f"{free / 1024**3:.1f} GiB free in {settings.DATA_DIR}"
    return Finding("disk", "ok" if free >= LEAST_FREE_BYTES else "missing", detail, "Free at least 500 MiB.")


def secret_key() -> Finding:
    key = settings.SECRET_KEY
    weak = len(key) < 50 or len(set(key)) < 5
    kept = settings.DATA_DIR / "secret_key"
    if weak:
        return Finding(
            "secret key", "missing", "SECRET_KEY is too short or too simple", "Use 50 random characters or more."
        )
    if kept.exists() and kept.stat().st_mode & 0o077:
        return Finding("secret key", "warning", f"{kept} can be read by others", f"chmod 600 {kept}")
    return Finding("secret key", "ok", "long enough")


def allowed_hosts() -> Finding:
    hosts = ", ".join(settings.ALLOWED_HOSTS)
    fix = "List the host names people use in ALLOWED_HOSTS, with commas."
    return Finding("allowed hosts", "warning" if "*" in settings.ALLOWED_HOSTS else "ok", hosts, fix)


def stdio_servers() -> Finding:
    if not settings.AGENTSITE_ALLOW_STDIO_SERVERS:
        return Finding("stdio servers", "ok", "not allowed: tool servers are added by URL")
    fix = "Unset AGENTSITE_ALLOW_STDIO_SERVERS unless every admin may run any program as this user."
    return Finding("stdio servers", "warning", "allowed: admins may start programs on this machine", fix)


def chromium() -> Finding:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
    )
    fix = "Install Chromium from your system's packages. Only the browser tests need it."
    return Finding("chromium", "ok" if found else "warning", found or "not on the PATH", fix)


CHECKS: tuple[Callable[[], Finding], ...] = (
    python,
    database,
    redis,
    worker,
    model,
    disk,
    secret_key,
    allowed_hosts,
    stdio_servers,
    chromium,
)


def system_checks() -> Iterator[Finding]:
    message: CheckMessage
    for message in checks.check_environment(None):
        outcome: Outcome = "missing" if message.is_serious() else "warning"
        yield Finding(str(message.id), outcome, str(message.msg), str(message.hint or ""))
