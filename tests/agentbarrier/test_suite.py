"""The independent suite AgentBarrier over the product: all of its scenarios, none skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from agentbarrier import RunnerOptions, ScenarioStatus, SuiteRunner
from agentbarrier.reporters import render_console
from agentbarrier.scenarios import DEFAULT_SCENARIOS

from approvals import evidence
from tests.agentbarrier.adapter import Agentsite

SCENARIOS = [scenario.scenario_id for scenario in DEFAULT_SCENARIOS]


@pytest.fixture
def product(transactional_db: None, tmp_path: Path) -> Iterator[Agentsite]:
    adapter = Agentsite(tmp_path)
    yield adapter
    adapter.close()


def test_the_suite_has_the_scenarios_it_is_known_for() -> None:
    assert len(SCENARIOS) == 11


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(product: Agentsite, scenario: str) -> None:
    options = RunnerOptions(
        operation_timeout_seconds=30, tool_timeout_seconds=2, strict_skips=True, scenarios=(scenario,)
    )

    suite = SuiteRunner(options).verify_sync(product)

    assert [result.status for result in suite.results] == [ScenarioStatus.PASSED], render_console(suite)
    assert evidence.verify(product.access.team) == []
