"""Sixteen runs at once in a real worker that is killed half way: all finish by themselves, no effect is repeated."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from runs.samples.simulated.reply import JsonObject, Reply, ToolCall
from tests.site import Site, running_site
from tests.up import eventually

RUNS, EFFECTS_EACH = 16, 4

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes through /proc"),
    pytest.mark.timeout(300),
]


def respond(body: JsonObject) -> Reply:
    """Turn after turn one e-mail of the run's own, then the end."""
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    task = str(body["messages"][0]["content"][0]["text"])
    number = re.findall(r"\d+", task)[0]
    if turn >= EFFECTS_EACH:
        return Reply(text="All are sent.")
    asked = {
        "to": "ops@harborpine.example",
        "subject": f"Run {number}, letter {turn}",
        "body": "For the record.",
        "reasoning": "The task asks for it.",
        "confidence": 0.99,
    }
    return Reply(tools=(ToolCall(name="shop__send_email", input=asked),))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    agent = {
        "slug": "writer",
        "name": "Writer",
        "tools": [{"name": "shop.send_email", "policy": "auto"}],
        "default_mode": "interactive",
    }
    (tmp_path / "agent.json").write_text(json.dumps([agent]))
    with running_site(tmp_path / "data") as site:
        site.command("import_agents", str(tmp_path / "agent.json"))
        site.model.respond = respond
        site.model.first_token_s = 0.1
        site.renew_shop()
        yield site


def test_all_finish_and_nothing_is_sent_twice(site: Site) -> None:
    runs = [site.launch("writer", "interactive", f"Send the letters of run {number}.") for number in range(RUNS)]
    eventually(lambda: len(site.ledger()) >= RUNS * EFFECTS_EACH // 2)
    before = Counter(entry["key"] for entry in site.ledger())
    os.kill(site.up.pid_of("celery"), signal.SIGKILL)
    unfinished = [run for run in runs if site.run(run)["status"] != "completed"]
    assert unfinished, "nothing was caught in the middle: this tests nothing"

    for run in runs:
        assert site.wait(run, "completed")["stop_reason"] == "done"

    after = Counter(entry["key"] for entry in site.ledger())
    assert len(after) == sum(after.values()) == RUNS * EFFECTS_EACH
    assert before <= after
    for run in runs:
        steps = site.steps(run)
        assert [step["seq"] for step in steps] == list(range(1, len(steps) + 1))
        assert sum(step["kind"] == "tool" for step in steps) == EFFECTS_EACH
