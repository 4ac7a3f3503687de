"""A running installation as tests use it: the API, commands, the shop's ledger, and a model at their pace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

from runs.samples.shop.store import Store
from runs.samples.simulated import FakeMessagesServer, respond
from tests.up import ROOT, Up, eventually, free_port

ENDED = ("completed", "stopped", "failed", "cancelled", "dry_run_ready")
NOTE = "Please ring Amara first: is the globe alone enough?"

JsonObject = dict[str, Any]


@dataclass
class Site:
    up: Up
    own_model: FakeMessagesServer | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def model(self) -> FakeMessagesServer:
        assert self.own_model, "this installation's model runs in a process of its own"
        return self.own_model

    @property
    def url(self) -> str:
        return self.up.url

    @property
    def shop(self) -> Path:
        return self.up.data_dir / "shop.sqlite3"

    def command(self, *words: str, **settings: str) -> str:
        env = {
            **os.environ,
            "AGENTSITE_DATA_DIR": str(self.up.data_dir),
            "DJANGO_SETTINGS_MODULE": "agentsite.settings",
        }
        env = {name: value for name, value in env.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env={**env, **self.environment, **settings},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @cached_property
    def token(self) -> str:
        return self.command("create_token", "admin")

    def sign_in_link(self, user: str = "admin") -> str:
        return self.command("sign_in_link", user, "--base-url", self.url)

    def api(self, path: str, body: JsonObject | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/v1{path}", data, headers)) as answer:
            return json.load(answer)

    # --- runs ------------------------------------------------------------------------------------------------------

    def launch(self, agent: str = "refund-desk", mode: str = "batch", task: str = "", **more: Any) -> str:
        run = self.api("/runs", {"agent": agent, "task": task or sample_task(agent), "mode": mode, **more})
        return str(run["id"])

    def run(self, run_id: str) -> JsonObject:
        found: JsonObject = self.api(f"/runs/{run_id}")
        return found

    def wait(self, run_id: str, *statuses: str) -> JsonObject:
        wanted = statuses or ENDED
        eventually(lambda: self.run(run_id)["status"] in (*wanted, *ENDED))
        run = self.run(run_id)
        assert run["status"] in wanted, (run["status"], run["stop_detail"])
        return run

    def parked(self, agent: str = "refund-desk", mode: str = "batch", task: str = "") -> str:
        """A run that waits for a person."""
        run_id = self.launch(agent, mode, task)
        self.wait(run_id, "waiting")
        return run_id

    def steps(self, run_id: str) -> list[JsonObject]:
        found, after = [], 0
        while after is not None:
            page = self.api(f"/runs/{run_id}/steps?after={after}")
            found += page["items"]
            after = page["next"]
        return found

    def batch(self, run_id: str) -> JsonObject:
        found: list[JsonObject] = self.api("/approvals?status=all&limit=200")["items"]
        return next(batch for batch in found if batch["run"] == run_id)

    def decide(self, run_id: str, *verdicts: str, note: str = NOTE, change: dict[str, Any] | None = None) -> None:
        """The verdicts in the order of the actions; the last one counts for all that follow, `change` for the first."""
        batch = self.batch(run_id)
        if change:
            batch["actions"][0]["args"] |= change
        decisions = [
            {
                "action": action["id"],
                "digest": action["digest"],
                "verdict": (verdict := verdicts[min(place, len(verdicts) - 1)]),
                "note": note if verdict == "reject" else "",
                **({"args": action["args"]} if change and not place else {}),
            }
            for place, action in enumerate(batch["actions"])
        ]
        answer = self.api(f"/approvals/{batch['id']}/decisions", {"version": batch["version"], "decisions": decisions})
        assert {result["outcome"] for result in answer["results"]} == {"applied"}, answer

    def unfinished(self) -> list[str]:
        """Where each run that has not ended stands, in a line each."""
        runs = [run for run in self.api("/runs?limit=200")["items"] if run["status"] not in ENDED]
        calls = [(call.status, call.finished) for call in self.model.calls[-2:]]
        return [f"{run['number']} {run['status']} {run['totals']} {self.steps(run['id'])[-2:]} {calls}" for run in runs]

    def start_over(self) -> None:
        """What an earlier test left running or waiting is cancelled, its effects are forgotten, the model is quick."""
        self.model.pace = 0
        unfinished = [run["id"] for run in self.api("/runs?limit=200")["items"] if run["status"] not in ENDED]
        for run_id in unfinished:
            self.api(f"/runs/{run_id}/cancel", {})
        for run_id in unfinished:
            self.wait(run_id)
        self.renew_shop()

    # --- the shop --------------------------------------------------------------------------------------------------

    def ledger(self) -> list[JsonObject]:
        return Store(self.shop).ledger()

    def renew_shop(self) -> None:
        """Yesterday's refunds are forgotten. Each call of the shop opens the file itself, so no process notices."""
        for name in ("shop.sqlite3", "shop.sqlite3-wal", "shop.sqlite3-shm"):
            self.shop.with_name(name).unlink(missing_ok=True)
        Store(self.shop).prepare()


@contextmanager
def running_site(data_dir: Path, **settings: str) -> Iterator[Site]:
    """With the simulated model in this process, as a model server of one's own: prices are those of the list."""
    with FakeMessagesServer(respond, echo_model=True) as model:
        environment = {"ANTHROPIC_BASE_URL": model.url, "AGENTSITE_SIMULATED_MODEL": "0", **settings}
        up = Up(data_dir, free_port(), **environment)
        try:
            up.wait_until_ready()
            yield Site(up, model, environment)
            assert up.stop() == 0
        finally:
            up.close()


def sample_task(agent: str) -> str:
    tasks: dict[str, str] = json.loads((ROOT / "runs" / "samples" / "tasks.json").read_text(encoding="utf-8"))
    return tasks[agent]


def tokens_of(row: JsonObject) -> int:
    return sum(row[name] for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"))


def cost_of(steps: list[JsonObject]) -> Decimal:
    assert all(step["cost_usd"] is not None for step in steps), "a step is unpriced"
    return sum((Decimal(step["cost_usd"]) for step in steps), Decimal(0))
