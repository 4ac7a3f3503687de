"""Servers that crash, go away, come back or change, and what becomes of their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runs.engine.ports import ToolConnectionLost, ToolUnavailable
from runs.schemas import FoundTool, ServerConfig
from runs.tools.mcp import ServerPool
from tests.adapters.workbench import DEADLINE_S, ROOT, HttpServer, Workshop, alive, stdio, until

# Broken connections


def test_crash_during_a_call_is_called_once_and_the_next_call_finds_a_new_server(local: Workshop) -> None:
    pid = local.pid()
    with pytest.raises(ToolConnectionLost):
        local.call("crash", key="act-1")
    assert local.noted() == ["crash"]
    assert local.pid() != pid


def test_child_that_crashed_is_dead_so_its_reconcile_is_believed(local: Workshop) -> None:
    with pytest.raises(ToolConnectionLost):
        local.call("crash_first", key="act-1")
    assert local.tools["workshop.crash_first"].reconcile("act-1") == "did_not_happen"


def test_child_that_died_between_calls_is_started_again_and_called_once(local: Workshop) -> None:
    pid = local.pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))
    local.call("paint", {"colour": "red"}, key="act-1")
    assert local.noted() == ["paint red"]
    assert local.pid() != pid


def test_crash_does_not_touch_the_sessions_of_other_servers(
    local: Workshop, found: list[FoundTool], tmp_path: Path
) -> None:
    other = Workshop(
        local.pool.tools("other", "workshop", stdio(tmp_path / "log2"), found), tmp_path / "log2", local.pool
    )
    pid = other.pid()
    assert local.pid() != pid
    with pytest.raises(ToolConnectionLost):
        local.call("crash", key="act-1")
    assert other.pid() == pid


def test_program_that_is_gone_is_unavailable_and_nothing_was_sent(pool: ServerPool, found: list[FoundTool]) -> None:
    config = ServerConfig(transport="stdio", command=["/no/such/program"])
    tools = pool.tools("id", "workshop", config, found)
    with pytest.raises(ToolUnavailable, match="was not found"):
        tools["workshop.paint"].execute({"colour": "red"}, idempotency_key="act-1", timeout_s=5)
    assert tools["workshop.paint"].reconcile("act-1") == "unknown"
    with pytest.raises(ToolUnavailable):
        tools["workshop.paint"].plan({"colour": "red"})


def test_http_server_down_and_up_again(
    http: HttpServer, pool: ServerPool, found: list[FoundTool], tmp_path: Path
) -> None:
    workshop = Workshop(pool.tools("id", "workshop", http.config, found), tmp_path / "log", pool)
    workshop.pid()
    http.stop()
    with pytest.raises(ToolUnavailable):
        workshop.call("paint", {"colour": "red"}, key="act-1")
    http.start()
    workshop.call("paint", {"colour": "blue"}, key="act-2")
    assert workshop.noted() == ["paint blue"]


def test_http_server_that_crashes_during_a_call_is_called_once(
    http: HttpServer, pool: ServerPool, found: list[FoundTool], tmp_path: Path
) -> None:
    workshop = Workshop(pool.tools("id", "workshop", http.config, found), tmp_path / "log", pool)
    with pytest.raises(ToolConnectionLost):
        workshop.call("crash", key="act-1")
    http.start()
    assert workshop.call("echo", {"text": "a"}).content == "a"
    assert workshop.noted() == ["crash"]


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_effect_that_is_not_what_was_approved_any_more_is_not_called(
    transport: str, http: HttpServer, pool: ServerPool, found: list[FoundTool], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    if transport == "http":
        http.stop()
        http.start("--renamed")
    config = http.config if transport == "http" else stdio(log, "--renamed")
    workshop = Workshop(pool.tools("id", "workshop", config, found), log, pool)
    with pytest.raises(ToolUnavailable, match="not the tool that was added"):
        workshop.call("paint", {"colour": "red"}, key="act-1")
    assert workshop.noted() == []
    assert workshop.call("echo", {"text": "reads go on"}).content == "reads go on"


def test_tool_that_is_gone(pool: ServerPool, tmp_path: Path) -> None:
    gone = FoundTool(name="gone", input_schema={"type": "object"}, effect="read")
    tools = pool.tools("id", "workshop", stdio(tmp_path / "log"), [gone])
    with pytest.raises(ToolUnavailable, match="no tool named gone"):
        tools["workshop.gone"].execute({}, idempotency_key="", timeout_s=5)


# Children


def test_children_get_no_secrets_of_ours(
    pool: ServerPool, found: list[FoundTool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("SECRET_KEY", "secret")
    monkeypatch.setenv("DATABASE_URL", "secret")
    tools = pool.tools("id", "workshop", stdio(tmp_path / "log", SHOP_TOKEN="theirs"), found)
    answer = tools["workshop.whoami"].execute({}, idempotency_key="", timeout_s=10)
    seen = set(answer.content["environment"])
    assert {"PATH", "LANG", "SHOP_TOKEN"} <= seen
    # The last three come from the interpreter and the locale, not from us.
    harmless = {"PATH", "HOME", "LANG", "LOGNAME", "SHELL", "TERM", "USER", "SHOP_TOKEN", "LC_CTYPE", "PWD", "SHLVL"}
    assert seen <= harmless


def test_close_ends_the_children_and_refuses_further_calls(local: Workshop) -> None:
    pid = local.pid()
    local.pool.close()
    assert not alive(pid)
    with pytest.raises(ToolUnavailable, match="shutting down"):
        local.call("echo", {"text": "a"})
    local.pool.close()


def test_changed_configuration_replaces_the_session_when_it_is_idle(
    local: Workshop, found: list[FoundTool], tmp_path: Path
) -> None:
    old = local.pid()
    config = stdio(tmp_path / "log", SHOP_TOKEN="new")
    napping = threading.Thread(target=lambda: results.append(local.call("nap", {"seconds": 0.5}).content))
    results: list[object] = []
    napping.start()
    newer = Workshop(local.pool.tools("id", "workshop", config, found), local.log, local.pool)
    assert newer.pid() != old
    napping.join(DEADLINE_S)
    assert results == ["rested"]
    until(lambda: not alive(old))
    assert local.call("echo", {"text": "old tools still work"}).content == "old tools still work"


def test_child_dies_with_a_killed_worker(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.adapters.servers.owner", *stdio(tmp_path / "log").command]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert alive(pid)
        worker.kill()
    until(lambda: not alive(pid))
