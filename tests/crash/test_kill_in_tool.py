"""SIGKILL inside the tool of step 5, after the effect: a keyed tool acts once, about any other a person is asked."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from accounts.access import Access
from approvals.models import Verdict
from runs import leases, tasks
from runs.engine.ports import Tool
from runs.engine.types import Effect, JsonObject, ToolPlan, ToolResult, ToolSpec
from runs.models import Batch, Run
from runs.samples.simulated.reply import ToolCall
from tests.crash.test_sigkill import in_a_worker
from tests.flows.conftest import decide
from tests.running import add_agent, launch, model, team_with_admin, turns, uses

pytestmark = pytest.mark.django_db(transaction=True)

CALL = ToolCall(name="ledger__write", input={"line": "x", "reasoning": "asked for", "confidence": 0.99})
READ = ToolCall(name="time__now", input={"reasoning": "asked for", "confidence": 0.99})
TURNS = turns(*[uses(READ)] * 4, uses(CALL), "It is written.")


class Ledger:
    """Writes a line for each call, and dies once after the first. A keyed one knows a key that it has seen."""

    def __init__(self, path: Path, *, keyed: bool) -> None:
        self.path = path
        self.spec = ToolSpec(
            name="ledger.write",
            description="Writes a line.",
            input_schema={"type": "object", "properties": {"line": {"type": "string"}}, "required": ["line"]},
            effect=Effect.WRITE,
            version="1",
            idempotent=keyed,
        )

    def validate(self, args: JsonObject) -> None:
        pass

    def plan(self, args: JsonObject) -> ToolPlan | None:
        return None

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        seen = self.lines()
        if not (self.spec.idempotent and idempotency_key in seen):
            with self.path.open("a") as file:
                file.write(f"{idempotency_key}\n")
        if not seen:
            os.kill(os.getpid(), signal.SIGKILL)
        return ToolResult(content={"written": True})

    def reconcile(self, idempotency_key: str) -> str:
        return "unknown"

    def undo(self, idempotency_key: str) -> ToolResult:
        raise NotImplementedError

    def lines(self) -> list[str]:
        return self.path.read_text().split() if self.path.exists() else []


@pytest.fixture(params=[True, False], ids=["keyed", "any other"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    made = Ledger(tmp_path / "ledger", keyed=request.param)

    def tools_for(run: Run, *_: Any, **__: Any) -> dict[str, Tool]:
        from runs.tools import BUILTIN

        return {"time.now": BUILTIN["time.now"], "ledger.write": made}

    monkeypatch.setattr("runs.toolbox.tools_for", tools_for)
    return made


def killed_in_the_tool(tmp_path: Path, ledger: Ledger) -> tuple[Access, Run]:
    access = team_with_admin()
    grants = [{"name": "time.now", "policy": "auto"}, {"name": "ledger.write", "policy": "auto"}]
    add_agent(access.team, tools=grants, default_mode="interactive")
    run = launch(access, "interactive")  # type: ignore[arg-type]
    assert in_a_worker(lambda: tasks.advance_run(str(run.id))) == signal.SIGKILL
    assert len(ledger.lines()) == 1
    leases.free_lost()
    assert in_a_worker(lambda: tasks.advance_run(str(run.id))) == 0
    run.refresh_from_db()
    return access, run


def test_it_acts_once_or_a_person_is_asked(tmp_path: Path, ledger: Ledger) -> None:
    with model(TURNS, tmp_path):
        access, run = killed_in_the_tool(tmp_path, ledger)
        if ledger.spec.idempotent:
            assert run.status == "completed"
            assert run.actions.get().status == "succeeded"
        else:
            assert (run.status, run.actions.get().status) == ("waiting", "unknown")
            assert Batch.objects.get(run=run).key == "unknown:5:0"
            decide(access, run, Verdict.HAPPENED)
            assert in_a_worker(lambda: tasks.advance_run(str(run.id))) == 0
            run.refresh_from_db()
            assert run.status == "completed"
    assert len(ledger.lines()) == 1, "it was done twice"
    assert list(run.steps.order_by("seq").values_list("seq", flat=True)) == list(range(1, run.last_seq + 1))
