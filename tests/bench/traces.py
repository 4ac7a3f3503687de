"""`python -m tests.bench.traces`: how quickly traces are found and opened, at the HTTP API, warm. Prints a table.

Makes a database of its own: SQLite in a temporary folder, or beside the one that DATABASE_URL names.
"""

from __future__ import annotations

import argparse
import datetime as dt
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import dj_database_url
import django
import psycopg

from tests.up import free_port

TIMES = 15
WARM_UP = 3


class Question(NamedTuple):
    name: str
    path: str
    floor_ms: int
    page: bool = False  # asked as a signed-in browser does


def search(text: str) -> str:
    return f"/api/v1/traces?q={quote(text)}"


def costs_since(days: int, by: str = "task_type") -> str:
    today = dt.datetime.now(dt.UTC).date()
    return f"/api/v1/costs?from={today - dt.timedelta(days=days - 1)}&to={today}&by={by}"


def questions(made: dict[str, Any]) -> list[Question]:
    return [
        Question("newest runs", "/api/v1/runs", 20),
        Question("newest runs, failed ones", "/api/v1/runs?status=failed", 20),
        Question("search: everything, newest", search(""), 20),
        Question("search: an agent, costs over a cent", search("agent:refund-desk cost:>0.01"), 20),
        Question("search: a status and a task type", search("status:failed type:cleanup"), 20),
        Question("search: a tool", search("tool:crm.add_note"), 20),
        Question("open a trace of 20 steps", f"/api/v1/traces/{made['short']}", 25),
        Question("open a trace of 2,000 steps: page", f"/traces/{made['long']}/", 80, page=True),
        Question("open a trace of 2,000 steps: whole JSON", f"/api/v1/traces/{made['long']}", 0),
        Question("rare word", search("quixotically"), 25),
        Question("word that is nowhere", search("nowhereword"), 25),
        Question("order number", search(made["order"]), 25),
        Question("e-mail address", search(made["mail"]), 25),
        Question("word in two fifths of all steps", search("delivered"), 60),
        Question("two-word phrase", search('"parcel returned"'), 150),
        Question("two common words in one step", search("step:{parcel returned delivered}"), 150),
        Question("sequence", search("step:{tool:web.search} -> step:{tool:shop.send_email}"), 80),
        Question("sequence with text", search("step:{tool:web.search delivered} -> step:{status:timeout}"), 80),
        Question("count of failed steps", search("count(step:{status:failed}):>2"), 80),
        Question("p50 and p95 of cost by task type", costs_since(90), 40),
        Question("cost by task type per day, 90 days", costs_since(90, by="task_type,day"), 40),
        Question("search grouped by task type and day", "/api/v1/traces/aggregate?q=since:90d&by=type,day", 0),
        Question("search page: everything", "/traces/", 0, page=True),
        Question("search page: common word", "/traces/?q=delivered", 0, page=True),
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, nargs="+", default=[100_000, 1_000_000], help="sizes, one after another")
    options.add_argument("--keep", help="a folder for the databases; made once, measured again when it is there")
    chosen = options.parse_args()
    results: list[dict[str, float]] = []
    for steps in chosen.steps:
        with database(steps, chosen.keep) as (environment, folder):
            made = prepared(steps, environment, folder)
            with server(environment) as port:
                results.append(measure(made, port))
    table(results, chosen.steps, questions(made))


@contextmanager
def database(steps: int, keep: str | None) -> Iterator[tuple[dict[str, str], Path]]:
    """(environment of the processes, folder)."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(keep or temporary) / f"bench-{steps}"
        folder.mkdir(parents=True, exist_ok=True)
        environment = {"AGENTSITE_DATA_DIR": str(folder), "AGENTSITE_SIMULATED_MODEL": "1"}
        url = os.environ.get("DATABASE_URL", "")
        name = f"agentsite_bench_{steps}"
        if url:
            parts = dj_database_url.parse(url)
            info = psycopg.conninfo.make_conninfo(
                "",
                dbname=parts["NAME"],
                user=parts["USER"],
                password=parts["PASSWORD"],
                host=parts["HOST"],
                port=parts["PORT"],
            )
            with psycopg.connect(info, autocommit=True) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
                if not known:
                    connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
                environment["DATABASE_URL"] = f"{url.rpartition('/')[0]}/{name}"
                yield environment, folder
                if not keep:
                    connection.execute(psycopg.sql.SQL("DROP DATABASE {}").format(psycopg.sql.Identifier(name)))
        else:
            yield environment, folder


def prepared(steps: int, environment: dict[str, str], folder: Path) -> dict[str, Any]:
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], env={**os.environ, **environment}, check=True)
    refresh = "import django; django.setup(); from runs import statistics; statistics.refresh()"  # as workers do
    settings = {"DJANGO_SETTINGS_MODULE": "agentsite.settings"}
    subprocess.run([sys.executable, "-c", refresh], env={**os.environ, **environment, **settings}, check=True)
    note = folder / ("made-postgresql.json" if "DATABASE_URL" in environment else "made-sqlite.json")
    if not note.exists():
        began = time.perf_counter()
        script = [sys.executable, "-c", f"from tests.bench.traces import fill; fill({steps}, {str(note)!r})"]
        subprocess.run(script, env={**os.environ, **environment}, check=True)
        print(f"{steps:,} steps loaded in {time.perf_counter() - began:.0f} s", flush=True)
    return dict(json.loads(note.read_text()))


def fill(steps: int, note: str) -> None:
    """In a process of its own: settings are read once."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "agentsite.settings"
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    from tests.bench import journals, signing_in

    call_command("migrate", verbosity=0)
    made = journals.make(steps)
    call_command("rollup", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    known = {"order": made.order, "mail": made.mail, "short": str(made.short), "long": str(made.long)}
    known |= {"runs": str(made.runs), "steps": str(made.steps), **signing_in.keys(made.people[0], made.team)}
    Path(note).write_text(json.dumps(known))


@contextmanager
def server(environment: dict[str, str]) -> Iterator[int]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "agentsite.asgi:application",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        for _ in range(200):
            try:
                ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), "/healthz", {})
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def ask(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> tuple[float, int, bytes]:
    """(milliseconds to the whole answer, status, body)."""
    began = time.perf_counter()
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    return (time.perf_counter() - began) * 1000, answer.status, body


def measure(made: dict[str, Any], port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found: dict[str, float] = {}
    for question in questions(made):
        headers = {"Cookie": f"{made['cookie']}"} if question.page else {"Authorization": f"Bearer {made['token']}"}
        times = []
        for number in range(TIMES + WARM_UP):
            took, status, body = ask(connection, question.path, headers)
            if number == 0 and status != 200:
                print(f"{question.name}: {status} {body[:300]!r}", flush=True)
            if number >= WARM_UP:
                times.append(took)
            if took > 3_000 and number > WARM_UP:
                break
        found[question.name] = statistics.median(times)
    return found


def table(results: list[dict[str, float]], sizes: list[int], asked: list[Question]) -> None:
    print(f"\n{'p50, warm':<46}" + "".join(f"{size:>12,}" for size in sizes) + "   growth   floor")
    for question in asked:
        values = [result[question.name] for result in results]
        growth = f"{values[-1] / values[0]:>8.1f}x" if len(values) > 1 else " " * 9
        floor = f"{question.floor_ms} ms" if question.floor_ms else ""
        print(f"{question.name:<46}" + "".join(f"{value:>9.1f} ms" for value in values) + f"{growth}   {floor}")


if __name__ == "__main__":
    main()
