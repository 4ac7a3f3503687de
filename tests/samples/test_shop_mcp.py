"""The sample shop as its clients meet it: a process that speaks MCP on stdin and stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

import runs
from runs.samples.shop import tools
from runs.samples.shop.store import Store

ROOT = Path(runs.__file__).parent.parent
EFFECTS = [tool.name for tool in tools.EFFECTS]
REFUND = {"order": "48213", "amount": 84.0, "reason": "Policy 3.1: the photo shows a dent."}


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Client]:
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "runs.samples.shop", "--data", str(path)], cwd=str(ROOT)
    )
    async with Client(command, read_timeout_seconds=30) as client:
        yield client


def meta(key: str) -> Any:
    return {"agentsite/idempotency-key": key}


async def test_tools_are_listed_with_hints_and_twins(tmp_path: Path) -> None:
    async with connected(tmp_path / "shop.sqlite3") as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(listed) == set(tools.TOOLS)
    for name in EFFECTS:
        tool = listed[name]
        assert tool.annotations is not None
        assert (tool.annotations.read_only_hint, tool.annotations.idempotent_hint) == (False, True)
        assert tool.meta is not None
        assert tool.meta["agentsite/plan"] == f"plan_{name}"
        assert tool.meta["agentsite/reconcile"] == "reconcile_effect"
        assert listed[f"plan_{name}"].input_schema == tool.input_schema
    risks = {name: (listed[name].meta or {})["agentsite/risk"] for name in EFFECTS}
    assert risks == {
        "issue_refund": "critical",
        "update_customer": "medium",
        "send_email": "high",
        "delete_stale_records": "high",
    }
    assert {name for name in EFFECTS if "agentsite/undo" in (listed[name].meta or {})} == {"update_customer"}
    writing = {name for name, tool in listed.items() if tool.annotations and not tool.annotations.read_only_hint}
    assert writing == {*EFFECTS, "undo_update_customer"}
    assert "$ref" not in json.dumps([tool.input_schema for tool in listed.values()])


async def test_a_call_travels_with_its_key_and_comes_back_structured(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite3"
    async with connected(path) as client:
        planned = await client.call_tool("plan_issue_refund", REFUND)
        assert planned.structured_content["preconditions"]["order_version"] == 1
        first = await client.call_tool("issue_refund", REFUND, meta=meta("k1"))
        again = await client.call_tool("issue_refund", REFUND, meta=meta("k1"))
    assert not first.is_error
    assert first.content[0].type == "text"
    assert json.loads(first.content[0].text) == first.structured_content
    assert again.structured_content == {**first.structured_content, "repeat": True}
    assert [entry["key"] for entry in Store(path).ledger()] == ["k1"]


async def test_refusals_are_error_results_in_words(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite3"
    async with connected(path) as client:
        results = [
            await client.call_tool("issue_refund", REFUND),
            await client.call_tool("issue_refund", {**REFUND, "amount": 500}, meta=meta("k1")),
            await client.call_tool("get_order", {"order": "1"}),
            await client.call_tool("no_such_tool", {}),
        ]
    assert all(result.is_error for result in results)
    texts = [result.content[0].text for result in results if result.content[0].type == "text"]
    assert ["idempotency key" in texts[0], "left to refund" in texts[1], "no order 1" in texts[2]] == [True] * 3
    assert "no tool no_such_tool" in texts[3]
    assert Store(path).ledger() == []


async def test_two_processes_racing_with_one_key_act_once(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite3"
    repeats: list[bool] = []

    async def refund(client: Client) -> None:
        result = await client.call_tool("issue_refund", {**REFUND, "amount": 10.0}, meta=meta("one-key"))
        repeats.append(result.structured_content["repeat"])

    # Both processes start on a missing file, so they race for the seeding as well.
    async with connected(path) as left, connected(path) as right, anyio.create_task_group() as group:
        for client in (left, right) * 4:
            group.start_soon(refund, client)
    assert sorted(repeats) == [False] + [True] * 7
    assert len(Store(path).ledger()) == 1
    assert tools.call(Store(path), "get_order", {"order": "48213"})["refunded"] == 10.0


def test_serving_a_foreign_file_fails_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to look at. " * 40)
    command = [sys.executable, "-m", "runs.samples.shop", "--data", str(path)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "cannot be used as the shop's file" in done.stderr
