"""What the engine itself costs: one real worker process, a loopback model, planning and evaluation off.

A turn is a model call with the tool it asks for; a step is what the journal records. On the PostgreSQL server of
DATABASE_URL it makes a database of its own and drops it; without one it uses SQLite in a temporary directory.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs.engine.types import Mode

TURNS = 10
ENDLESS = 100_000
TICKS = os.sysconf("SC_CLK_TCK")
NO_LIMITS = dict.fromkeys(("max_steps", "max_input_tokens", "max_output_tokens", "max_cost_usd", "max_seconds"), None)
# What search alone needs is not part of what a step takes.
SEARCH = "%search%"


@dataclass(frozen=True)
class Figure:
    """What one batch of equal runs took. Seconds, except where the name says otherwise."""

    runs: int
    turns: int
    steps: int
    wall_s: float
    in_runs_s: float
    cpu_s: float
    commits: int | None
    stored_bytes: int | None

    @property
    def all_turns(self) -> int:
        return self.runs * self.turns


@contextmanager
def own_database(url: str, folder: Path) -> Iterator[str]:
    if not url:
        yield f"sqlite:///{folder / 'bench.sqlite3'}"
        return
    import psycopg

    name = f"agentsite_bench_{os.getpid()}"
    base, _, _ = url.rpartition("/")
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield f"{base}/{name}"
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def own_redis(given: str, folder: Path) -> Iterator[str]:
    from agentsite import redis_server

    source = redis_server.find(given, folder)
    if source.argv is None:
        yield source.url
        return
    server = subprocess.Popen(source.argv, stdout=subprocess.DEVNULL)
    try:
        if not redis_server.wait_until_listening(source.url):
            raise RuntimeError(f"no Redis: {source.description}")
        yield source.url
    finally:
        server.terminate()
        server.wait()
        redis_server.clean_up(source)


@contextmanager
def program(*argv: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(argv, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


@contextmanager
def loopback(turns: int, delay_s: float) -> Iterator[str]:
    with program(sys.executable, "-m", "tests.bench.loopback", f"--turns={turns}", f"--delay={delay_s}") as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


@contextmanager
def worker(concurrency: int, model_url: str) -> Iterator[int]:
    """The pid of one worker process, once it is ready and has what it imports late."""
    options = ("--pool", "threads", "--concurrency", str(concurrency), "--loglevel", "WARNING")
    argv = (sys.executable, "-m", "celery", "--app", "agentsite", "--quiet", "worker", *options)
    with program(*argv, ANTHROPIC_BASE_URL=model_url, AGENTSITE_CONCURRENCY=str(concurrency)) as process:
        yield process.pid


@contextmanager
def surroundings() -> Iterator[None]:
    """A folder, a Redis and a database of the benchmark's own, in the environment of it and of what it starts. None of
    that is left behind when it is told to end: a worker that lived on would take the next one's runs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis_url = stack.enter_context(own_redis(os.environ.get("REDIS_URL", ""), folder))
        database_url = stack.enter_context(own_database(os.environ.get("DATABASE_URL", ""), folder))
        os.environ |= {
            "AGENTSITE_DATA_DIR": str(folder),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "DJANGO_SETTINGS_MODULE": "agentsite.settings",
            "ANTHROPIC_API_KEY": "loopback",
            "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
        }
        os.environ.pop("AGENTSITE_SIMULATED_MODEL", None)
        yield


class Bench:
    """Django is set up for the benchmark's own database when this is made."""

    def __init__(self) -> None:
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        from tests import running

        self.running = running
        self.access = running.team_with_admin()
        running.add_agent(
            self.access.team, "bench", tools=[{"name": "time.now", "policy": "auto"}], limits=NO_LIMITS, name="Bench"
        )

    def measure(self, runs: int, turns: int, pid: int) -> Figure:
        from runs.models import Run

        before = self.commits(), self.stored(), cpu_s(pid)
        began = time.perf_counter()
        made = [self.launch().id for _ in range(runs)]
        until(lambda: not Run.objects.filter(id__in=made, ended_at__isnull=True).exists(), 600)
        wall = time.perf_counter() - began
        cpu = cpu_s(pid) - before[2]
        done = list(Run.objects.filter(id__in=made))
        wrong = [f"{run}: {run.status} {run.stop_detail}" for run in done if run.status != "completed"]
        if wrong:
            raise RuntimeError("; ".join(wrong[:3]))
        times = [(run.started_at, run.ended_at) for run in done if run.started_at and run.ended_at]
        seconds = [(ended - started).total_seconds() for started, ended in times]
        first, last = min(started for started, _ in times), max(ended for _, ended in times)
        commits, stored = self.commits(), self.stored()
        return Figure(
            runs=runs,
            turns=turns,
            steps=sum(run.last_seq for run in done),
            wall_s=(last - first).total_seconds() if runs > 1 else wall,
            in_runs_s=sum(seconds),
            cpu_s=cpu,
            commits=None if commits is None or before[0] is None else commits - before[0],
            stored_bytes=None if stored is None or before[1] is None else stored - before[1],
        )

    def launch(self) -> Any:
        return self.running.launch(self.access, Mode.INTERACTIVE, "Read the time.", agent="bench")

    def commits(self) -> int | None:
        """Transactions that wrote, of the whole server: run this where nobody else writes."""
        return self.ask("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")

    def stored(self) -> int | None:
        """Bytes of every table with its indexes, but for those of search."""
        return self.ask(
            "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relname NOT LIKE %s",
            [SEARCH],
        )

    def close(self) -> None:
        from django.db import connections

        connections.close_all()

    def ask(self, query: str, values: list[Any] | None = None) -> int | None:
        from django.db import connection

        if connection.vendor != "postgresql":
            return None
        with connection.cursor() as cursor:
            cursor.execute(query, values)
            return int(cursor.fetchone()[0])


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("the runs do not end")
        time.sleep(0.05)


def main(argv: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", choices=["one", "many", "long", "slow"], action="append", help="which figures (all)")
    wanted = set(options.parse_args(argv).only or ["one", "many", "long", "slow"])
    with ExitStack() as stack:
        stack.enter_context(surroundings())
        bench = Bench()
        stack.callback(bench.close)
        run_all(bench, wanted)


def run_all(bench: Bench, wanted: set[str]) -> None:
    print(f"{'the engine, one worker process':<34}{'ms/turn':>9}{'CPU ms':>8}{'turns/s':>9}{'steps/s':>9}", end="")
    print(f"{'ms/step':>9}{'CPU/step':>9}{'commits':>9}{'kB/turn':>9}{'kB/step':>9}")
    if wanted & {"one", "many"}:
        with loopback(TURNS, 0) as url, worker(64, url) as pid:
            bench.measure(4, TURNS, pid)
            if "one" in wanted:
                row("one run after the other", *[bench.measure(1, TURNS, pid) for _ in range(20)])
            if "many" in wanted:
                bench.measure(64, TURNS, pid)
                row("64 runs at once", bench.measure(64, TURNS, pid))
    if "long" in wanted:
        with loopback(100, 0) as url, worker(64, url) as pid:
            bench.measure(1, 100, pid)
            row("a run of 100 turns", bench.measure(4, 100, pid))
    if "slow" in wanted:
        with loopback(TURNS, 0.5) as url, worker(500, url) as pid:
            bench.measure(4, TURNS, pid)
            slow = bench.measure(500, TURNS, pid)
            row("500 runs at once, model of 500 ms", slow)
            pace = slow.turns * 0.5 / (slow.in_runs_s / slow.runs)
            whole = slow.turns * 0.5 / slow.wall_s
            print(f"  of the model's own pace: {pace:.1%} within each run, {whole:.1%} from first start to last end")


def row(name: str, *figures: Figure) -> None:
    turns, steps = sum(f.all_turns for f in figures), sum(f.steps for f in figures)
    wall, cpu = sum(f.wall_s for f in figures), sum(f.cpu_s for f in figures)
    each = sum(f.in_runs_s for f in figures) if figures[0].runs == 1 else wall
    cells = [f"{each * 1000 / turns:>9.2f}", f"{cpu * 1000 / turns:>8.2f}"]
    cells += [f"{turns / each:>9.0f}", f"{steps / each:>9.0f}"]
    cells += [f"{each * 1000 / steps:>9.2f}", f"{cpu * 1000 / steps:>9.2f}"]
    with suppress(TypeError):
        cells.append(f"{sum(f.commits for f in figures) / turns:>9.2f}")  # type: ignore[misc]
        stored = sum(f.stored_bytes for f in figures) / 1000  # type: ignore[misc]
        cells.append(f"{stored / turns:>9.2f}{stored / steps:>9.2f}")
    print(f"{name:<34}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
