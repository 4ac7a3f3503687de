"""The sample that shows delegation: an editor with searchers, a summariser and an evaluator, by the simulated model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import runs
from accounts.access import Access
from runs.agents import save_agent
from runs.models import Run
from runs.samples.simulated import respond
from runs.schemas import AgentIn
from tests.flows.conftest import Model, assert_sound
from tests.flows.shop import LocalShop
from tests.running import advance, launch

SAMPLES = Path(runs.__file__).parent / "samples"


def add_samples(access: Access) -> str:
    agents: list[dict[str, Any]] = json.loads((SAMPLES / "agents.json").read_text(encoding="utf-8"))
    for agent in agents:
        save_agent(access.team, agent.pop("slug"), AgentIn.model_validate(agent), by=None)
    return str(json.loads((SAMPLES / "tasks.json").read_text(encoding="utf-8"))["report-editor"])


def work(run: Run) -> Run:
    """What workers do with the run and all below it until it ends."""
    for _ in range(20):
        run = advance(run)
        if run.is_ended:
            return run
        for child in Run.objects.filter(parent=run, ended_at=None):
            work(child)
        run.refresh_from_db()
    raise AssertionError("the run does not end")


def test_a_report_is_searched_for_side_by_side_written_and_judged(crew: Access, shop: LocalShop, model: Model) -> None:
    task = add_samples(crew)
    model.server.respond = respond
    run = work(launch(crew, agent="report-editor", task=task))
    children = list(Run.objects.filter(parent=run).order_by("number").values_list("agent__slug", "status"))
    assert children == [("searcher", "completed")] * 3 + [("summariser", "completed"), ("evaluator", "completed")]
    assert run.status == "completed"
    assert "60 days" in run.result, "what the policy says of the refund window"
    assert "Verdict: good." in run.result
    for each in Run.objects.all():
        assert_sound(each)
