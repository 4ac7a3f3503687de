"""Real MCP servers in processes of their own, over stdio and over HTTP."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from runs.engine.ports import PlanRefused, ToolConnectionLost, ToolTimeout, ToolUnavailable
from runs.engine.types import Effect, Risk, ToolPlan, ToolResult
from runs.schemas import FoundTool, ServerConfig
from runs.tools.base import ServerError
from runs.tools.mcp import ServerPool, discover
from tests.adapters.workbench import DEADLINE_S, ROOT, HttpServer, Workshop, alive, free_port, stdio

# What a server offers


def test_effects_and_risks_come_from_hints_and_the_worst_is_assumed(found: list[FoundTool]) -> None:
    assert {tool.name: (tool.effect, tool.risk.value, tool.idempotent) for tool in found} == {
        "echo": ("read", "low", False),
        "whoami": ("read", "low", False),
        "nap": ("read", "low", True),
        "refuse": ("write", "medium", False),
        "picture": ("read", "low", False),
        "paint": ("write", "critical", True),
        "hang_picture": ("write", "high", False),  # says nothing of its risk, but how it is undone
        "strike": ("irreversible", "high", False),
        "slow_paint": ("irreversible", "high", False),
        "crash": ("irreversible", "high", False),
        "crash_first": ("irreversible", "high", False),
        "lie": ("irreversible", "high", False),
        "typed": ("irreversible", "high", False),
    }


def test_twins_are_named_and_not_offered(found: list[FoundTool]) -> None:
    tools = {tool.name: tool for tool in found}
    assert not {"plan_paint", "did_it", "scrape"} & set(tools)
    paint = tools["paint"]
    assert (paint.plan, paint.reconcile, paint.undo) == ("plan_paint", "did_it", "scrape")


def test_tool_that_changes_something_is_nobodys_plan(found: list[FoundTool]) -> None:
    tools = {tool.name: tool for tool in found}
    assert tools["crash"].plan is None  # it named `paint`
    assert tools["lie"].plan is None  # it named itself
    assert "paint" in tools


def test_tools_that_cannot_be_called_are_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [tool.name for tool in discover(stdio(tmp_path / "log"), "workshop")]
    assert not {"not/callable", "bad_schema"} & set(names)
    assert "not/callable" in caplog.text
    assert "bad_schema" in caplog.text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["/no/such/program"], "the command '/no/such/program' was not found"),
        ([sys.executable, "-c", "import no_such_module"], "No module named 'no_such_module'"),
        ([sys.executable, "-c", "pass"], "did not start as an MCP server"),
        ([sys.executable, "-c", "import time; time.sleep(600)"], "no answer within 2 s"),
        ([sys.executable, "-uc", "print('Welcome!'); import time; time.sleep(600)"], "something that is not MCP"),
        (["yes"], "yes printed something that is not MCP"),
        (["cat"], "cat did not start as an MCP server"),
    ],
    ids=["missing", "import", "exits", "silent", "greets", "floods", "echoes"],
)
def test_program_that_is_no_server_is_named_with_the_reason(command: list[str], message: str) -> None:
    with pytest.raises(ServerError) as caught:
        discover(ServerConfig(transport="stdio", command=command), "workshop", timeout=2)
    assert message in str(caught.value)


def test_arguments_are_not_repeated_in_errors() -> None:
    config = ServerConfig(transport="stdio", command=["false", "--token=sesame"])
    with pytest.raises(ServerError) as caught:
        discover(config, "workshop")
    assert "sesame" not in str(caught.value)


def test_discover_leaves_no_process(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(ServerError):
        discover(ServerConfig(transport="stdio", command=[sys.executable, "-c", code]), "workshop", timeout=2)
    assert not alive(int(pid_file.read_text()))


# Calling


def test_results(workshop: Workshop) -> None:
    assert workshop.call("echo", {"text": "hé\u202e"}) == ToolResult(content="hé\u202e")
    assert workshop.call("refuse") == ToolResult(content="the brush is dry", is_error=True)
    assert workshop.call("picture").content == "a cat\n[image, image/png, not shown]"
    assert workshop.call("paint", {"colour": "red"}, key="result-1").content == {"painted": "red"}


def test_an_error_of_the_servers_own_is_its_answer_whatever_its_number(workshop: Workshop) -> None:
    """The number that the SDK gives a lost connection is also the first that servers may use as they like."""
    assert workshop.call("strike") == ToolResult(content="on strike until noon", is_error=True)


def test_key_travels_with_an_effect_and_undo_has_one_of_its_own(workshop: Workshop) -> None:
    workshop.call("paint", {"colour": "red"}, key="key-1")
    paint = workshop.tools["workshop.paint"]
    assert [paint.reconcile("key-1"), paint.reconcile("key-2")] == ["happened", "did_not_happen"]
    assert paint.undo("key-1") == ToolResult(content="scraped")
    assert workshop.noted("key-1") == ["paint red", "scrape key-1"]
    assert workshop.noted("undo:key-1") == ["scrape key-1"]


def test_plan_changes_nothing_and_its_preconditions_follow_the_world(workshop: Workshop) -> None:
    paint, coats = workshop.tools["workshop.paint"], len(workshop.noted())
    preview = {"type": "record", "fields": [{"field": "wall", "now": "white", "after": "red"}]}
    planned = ToolPlan(summary="Paint it red", preview=preview, preconditions={"coats": coats})
    assert paint.plan({"colour": "red"}) == planned
    assert paint.plan({"colour": "red"}) == planned
    workshop.call("paint", {"colour": "red"}, key="plan-1")
    again = paint.plan({"colour": "red"})
    assert again is not None
    assert again.preconditions == {"coats": coats + 1}
    with pytest.raises(PlanRefused, match="there is no such paint"):
        paint.plan({"colour": "invisible"})


def test_tool_without_twins(local: Workshop) -> None:
    crash = local.tools["workshop.crash"]
    assert crash.plan({}) is None
    assert crash.reconcile("act-1") == "unknown"
    with pytest.raises(ToolUnavailable):
        crash.undo("act-1")


def test_slow_tool_times_out_and_the_session_stays(workshop: Workshop) -> None:
    pid = workshop.pid()
    began = time.monotonic()
    with pytest.raises(ToolTimeout):
        workshop.call("nap", {"seconds": 600}, timeout_s=0.3)
    assert time.monotonic() - began < 5
    assert workshop.pid() == pid


def test_no_answer_yet_is_not_taken_for_not_happened(workshop: Workshop) -> None:
    slow = workshop.tools["workshop.slow_paint"]
    with pytest.raises(ToolTimeout):
        workshop.call("slow_paint", {"colour": "red"}, key="slow-1", timeout_s=1)
    assert slow.reconcile("slow-1") == "unknown"
    assert slow.reconcile("slow-2") == "did_not_happen"


def test_answer_that_breaks_the_tools_own_schema_leaves_the_effect_in_doubt(workshop: Workshop) -> None:
    with pytest.raises(ToolConnectionLost, match="could not be read"):
        workshop.call("typed", key="typed-1")
    assert workshop.noted("typed-1") == ["typed"]


def test_threads_share_one_session(workshop: Workshop) -> None:
    answers: list[object] = []

    def work(number: int) -> None:
        answers.append(workshop.call("echo", {"text": str(number)}).content)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(map(str, answers)) == [str(number) for number in range(8)]
    assert workshop.pid() == workshop.pid()


def test_validation_is_done_here(local: Workshop) -> None:
    local.tools["workshop.echo"].validate({"text": "a"})
    with pytest.raises(Exception, match="text: is required"):
        local.tools["workshop.echo"].validate({})


def test_spec(local: Workshop) -> None:
    spec = local.tools["workshop.paint"].spec
    assert (spec.name, spec.effect, spec.risk) == ("workshop.paint", Effect.WRITE, Risk.CRITICAL)
    assert (spec.idempotent, spec.can_plan, spec.can_undo) == (True, True, True)


# Addresses


def refusal(url: str, *, allow_private: bool) -> str:
    with pytest.raises(ServerError) as caught:
        discover(ServerConfig(transport="http", url=url), "workshop", timeout=5, allow_private=allow_private)
    return str(caught.value)


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "[fd00:ec2::254]", "100.100.100.200", "0.0.0.0"],
)
def test_metadata_and_link_local_addresses_are_never_reached(host: str) -> None:
    assert "never allowed" in refusal(f"http://{host}/mcp", allow_private=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "10.1.2.3", "[::ffff:10.1.2.3]"])
def test_private_addresses_need_the_flag(host: str) -> None:
    assert "does not allow" in refusal(f"http://{host}:9/mcp", allow_private=False)


def test_private_server_with_the_flag(http: HttpServer) -> None:
    assert "echo" in [tool.name for tool in discover(http.config, "workshop", allow_private=True)]
    assert "does not allow" in refusal(http.config.url, allow_private=False)


def test_page_that_is_no_server(http: HttpServer) -> None:
    url = http.config.url.replace("/mcp", "/other?token=sesame")
    message = refusal(url, allow_private=True)
    assert "HTTP 404" in message
    assert "sesame" not in message


def test_nobody_listens() -> None:
    assert "could not connect" in refusal(f"http://127.0.0.1:{free_port()}/mcp", allow_private=True)


# The sample shop


def test_sample_shop_works_through_the_pool(pool: ServerPool, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "runs.samples.shop", "--data", str(tmp_path / "shop.sqlite3")]
    config = ServerConfig(transport="stdio", command=command, env={"PYTHONPATH": str(ROOT)})
    offered = discover(config, "shop")
    tools = pool.tools("id", "shop", config, offered)
    effects = {tool.name: (tool.effect, tool.plan is not None, tool.undo is not None) for tool in offered}
    assert effects["issue_refund"] == ("irreversible", True, False)
    assert effects["update_customer"] == ("write", True, True)
    assert effects["get_order"] == ("read", False, False)
    assert not [name for name in effects if name.startswith(("plan_", "reconcile_", "undo_"))]
    change = tools["shop.update_customer"]
    ticket = tools["shop.list_tickets"].execute({}, idempotency_key="", timeout_s=10).content["tickets"][0]
    order = tools["shop.get_order"].execute({"order": ticket["order"]}, idempotency_key="", timeout_s=10).content
    args = {"customer": order["customer"], "changes": {"notes": "Called back."}}
    change.validate(args)
    planned = change.plan(args)
    assert planned is not None
    assert planned.preview["type"] == "record"
    assert not change.execute(args, idempotency_key="act-1", timeout_s=10).is_error
    assert change.reconcile("act-1") == "happened"
    assert change.reconcile("act-2") == "did_not_happen"
    assert not change.undo("act-1").is_error
