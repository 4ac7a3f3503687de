"""`/agents`, `/tools`, `/tool-servers`."""

from __future__ import annotations

import json
import socket
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as product
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from runs.models import Agent, AgentVersion, ToolServer
from tests.api.client import answer, problem, words
from tests.api.conftest import As
from tests.approvals.factories import World

AGENT = words(
    "name purpose instructions model fallback_models effort tools planning evaluation judge_model answer_threshold"
    " limits raise_limits context_tokens filters output_schema subagents default_mode task_types version"
) | {"slug", "created_at", "updated_at"}
TOOL = {
    "name",
    "description",
    "input_schema",
    "effect",
    "risk",
    "idempotent",
    "can_plan",
    "can_undo",
    "server",
    "version",
}
SORTER: dict[str, Any] = {
    "name": "Ticket sorter",
    "purpose": "Sorts tickets.",
    "instructions": "Read, then sort.",
    "model": "claude-sonnet-5-5",
    "effort": "low",
    "tools": [{"name": "shop.issue_refund", "policy": "two_person", "risk": "critical", "timeout_s": 5}],
    "planning": True,
    "evaluation": "final",
    "limits": {"max_steps": 9, "max_cost_usd": "0.25"},
    "output_schema": {"type": "object"},
    "subagents": ["refund-desk"],
    "default_mode": "batch",
    "task_types": ["sorting"],
}


def test_an_agent_is_made_then_versioned(world: World, as_: As) -> None:
    admin = as_("admin")
    made = answer(admin.put("/agents/sorter", SORTER), 201)
    assert set(made) == AGENT
    assert (made["slug"], made["version"]) == ("sorter", 1)
    assert {name: made[name] for name in SORTER if name not in ("tools", "limits")} == {
        name: value for name, value in SORTER.items() if name not in ("tools", "limits")
    }
    assert made["tools"] == [{**SORTER["tools"][0], "threshold": None}]
    assert (made["limits"]["max_steps"], made["limits"]["max_cost_usd"]) == (9, "0.25")

    assert answer(admin.put("/agents/sorter", SORTER))["version"] == 1, "nothing changed: no new version"
    changed = answer(admin.put("/agents/sorter", {**SORTER, "purpose": "Sorts tickets by shelf."}))
    assert (changed["version"], changed["purpose"]) == (2, "Sorts tickets by shelf.")
    assert answer(as_("viewer").get("/agents/sorter")) == changed
    assert AgentVersion.objects.filter(agent__slug="sorter").count() == 2


def test_what_an_agent_answers_can_be_put_back(world: World, as_: As) -> None:
    """Read, change, write. What only the server knows is read over, so that an agent can be copied too."""
    admin = as_("admin")
    made = answer(admin.put("/agents/sorter", SORTER), 201)
    assert answer(admin.put("/agents/sorter", made)) == made
    changed = answer(admin.put("/agents/sorter", {**made, "version": 7, "purpose": "Sorts."}))
    assert (changed["version"], changed["purpose"], changed["slug"]) == (2, "Sorts.", "sorter")
    assert answer(admin.put("/agents/second", changed), 201)["slug"] == "second"


def test_agents_are_imported_as_the_api_gives_them(world: World, as_: As, tmp_path: Path) -> None:
    admin, file = as_("admin"), tmp_path / "agents.json"
    answer(admin.put("/agents/sorter", SORTER), 201)
    file.write_text(json.dumps(answer(admin.get("/agents"))))
    made = StringIO()
    who = ["--user", world.people["admin"].username, "--team", world.team.slug]
    call_command("import_agents", str(file), *who, "--json", stdout=made)
    assert json.loads(made.getvalue()) == [
        {"slug": "sorter", "version": 1, "created": False},
        {"slug": "refund-desk", "version": 1, "created": False},
    ]
    file.write_text(json.dumps({"slug": "second", "name": "Second", "limits": {"max_steps": 0}, "colour": "red"}))
    with pytest.raises(CommandError) as refused:
        call_command("import_agents", str(file), *who)
    assert str(refused.value) == (
        f"{file}: agent second: limits.max_steps: Input should be greater than 0; "
        "colour: Extra inputs are not permitted"
    )
    assert not Agent.objects.filter(slug="second").exists()


def test_agents_are_listed(world: World, as_: As) -> None:
    answer(as_("admin").put("/agents/sorter", SORTER), 201)
    listed = answer(as_("viewer").get("/agents"))
    assert set(listed) == {"items", "next"}
    assert [agent["slug"] for agent in listed["items"]] == ["sorter", "refund-desk"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"name": 7}, "name"),
        ({"nam": "typing mistake"}, "nam"),
        ({"effort": "heroic"}, "effort"),
        ({"limits": {"max_steps": -1}}, "limits.max_steps"),
        ({"limits": {"max_steps": 0}}, "limits.max_steps"),
        ({"limits": {"max_cost_usd": "much"}}, "limits.max_cost_usd"),
        ({"limits": {"max_cost_usd": "0.0000000001"}}, "limits.max_cost_usd"),
        ({"limits": {"max_dollars": 3}}, "limits.max_dollars"),
        ({"tools": [{"name": "shop.issue_refund", "policy": "perhaps"}]}, "tools.0.policy"),
        ({"tools": [{"name": "shop.issue_refund", "policy": "auto", "threshold": 1.5}]}, "tools.0.threshold"),
        ({"tools": [{"name": "shop.issue_refund"}]}, "tools.0.policy"),
        ({"tools": [{"name": "not a name!", "policy": "auto"}]}, "tools.0.name"),
        ({"tools": [{"name": "shop.isue_refund", "policy": "auto"}]}, "tools.0.name"),
        ({"tools": "shop.issue_refund"}, "tools"),
        ({"subagents": ["nobody"]}, "subagents.0"),
        ({"subagents": ["sorter"]}, "subagents.0"),
        ({"instructions": "a\x00b"}, "instructions"),
        ({"instructions": "\udc00"}, "instructions"),
        ({"output_schema": {"a": {"b": ["\x00"]}}}, "output_schema.a.b.0"),
        ({"output_schema": {"type": "nonsense"}}, "output_schema"),
        ({"output_schema": {"properties": {"a": {"minimum": "low"}}}}, "output_schema"),
        ({"default_mode": "yolo"}, "default_mode"),
        ({"task_types": [""]}, "task_types.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_agent_that_can_not_be(world: World, as_: As, change: dict[str, Any], field: str) -> None:
    problem(as_("admin").put("/agents/sorter", {**SORTER, **change}), 422, field)
    assert not Agent.objects.filter(slug="sorter").exists()


def test_a_tool_listed_twice(world: World, as_: As) -> None:
    refused = problem(as_("admin").put("/agents/sorter", {**SORTER, "tools": SORTER["tools"] * 2}), 422, "body")
    assert "listed twice: shop.issue_refund" in refused["detail"]


def test_an_unknown_tool_is_named_with_what_was_meant(world: World, as_: As) -> None:
    tools = [{"name": "store.issue_refund", "policy": "auto"}]
    refused = problem(as_("admin").put("/agents/sorter", {**SORTER, "tools": tools}), 422, "tools.0.name")
    assert "There is no tool “store.issue_refund”. Did you mean “shop.issue_refund”?" in refused["detail"]


@pytest.mark.parametrize("slug", ["Sorter", "a_b", "-a", "a--b", "x" * 41, "%00", "ä", "a%20b"])
def test_a_slug_that_can_not_be(world: World, as_: As, slug: str) -> None:
    problem(as_("admin").put(f"/agents/{slug}", SORTER), 422, "slug")
    assert Agent.objects.filter(team=world.team).count() == 1


# --- tools -----------------------------------------------------------------------------------------------------------


def test_every_tool_that_an_agent_may_use(world: World, as_: As) -> None:
    listed = answer(as_("viewer").get("/tools"))
    tools = {tool["name"]: tool for tool in listed["items"]}
    assert all(set(tool) == TOOL for tool in tools.values())
    assert {"shop.issue_refund", "shop.send_email", "shop.update_customer"} <= set(tools)
    refund = tools["shop.issue_refund"]
    assert (refund["effect"], refund["risk"], refund["server"]) == ("irreversible", "critical", "shop")
    assert any(tool["server"] is None for tool in tools.values()), "the built-in ones"


@override_settings(AGENTSITE_ALLOW_STDIO_SERVERS=True)
def test_a_server_is_asked_for_its_tools(world: World, as_: As, tmp_path: Path) -> None:
    config = {
        "transport": "stdio",
        "command": [sys.executable, "-m", "runs.samples.shop", "--data", str(tmp_path / "shop.sqlite3")],
        "env": {"PYTHONPATH": str(product.BASE_DIR), "SECRET": "swordfish"},
    }
    response = as_("admin").put("/tool-servers/outlet", config)
    found = answer(response)
    assert set(found) == {"slug", "transport", "checked_at", "tools"}
    tools = {tool["name"]: tool for tool in found["tools"]}
    assert set(tools["outlet.issue_refund"]) == {"name", "description", "hints", "twins"}
    assert tools["outlet.issue_refund"]["hints"] == {"effect": "irreversible", "idempotent": True, "risk": "critical"}
    assert tools["outlet.issue_refund"]["twins"] == {"plan": "plan_issue_refund", "reconcile": "reconcile_effect"}
    assert tools["outlet.get_order"]["hints"]["effect"] == "read"
    assert "outlet.plan_issue_refund" not in tools
    assert b"swordfish" not in response.content
    assert b"swordfish" not in bytes(ToolServer.objects.get(slug="outlet").config)
    assert "outlet.issue_refund" in {tool["name"] for tool in answer(as_("viewer").get("/tools"))["items"]}


def test_stdio_is_refused_where_it_is_not_allowed(world: World, as_: As, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    config = {"transport": "stdio", "command": [sys.executable, "-c", f"open({str(mark)!r}, 'w')"]}
    refused = problem(as_("admin").put("/tool-servers/outlet", config), 422, "transport")
    assert "AGENTSITE_ALLOW_STDIO_SERVERS" in refused["detail"]
    assert not mark.exists()
    assert not ToolServer.objects.filter(slug="outlet").exists()


@override_settings(AGENTSITE_ALLOW_STDIO_SERVERS=True)
@pytest.mark.parametrize("role", ["viewer", "operator", "approver"])
def test_only_an_admin_starts_anything(world: World, as_: As, tmp_path: Path, role: str) -> None:
    mark = tmp_path / "ran"
    config = {"transport": "stdio", "command": [sys.executable, "-c", f"open({str(mark)!r}, 'w')"]}
    problem(as_(role).put("/tool-servers/outlet", config), 403)
    assert not mark.exists()


@override_settings(AGENTSITE_ALLOW_STDIO_SERVERS=True)
@pytest.mark.parametrize(
    "command", [["/nowhere/at/all"], [sys.executable, "-c", "raise SystemExit(3)"]], ids=["missing", "ends at once"]
)
def test_a_server_that_does_not_start(world: World, as_: As, command: list[str]) -> None:
    problem(as_("admin").put("/tool-servers/outlet", {"transport": "stdio", "command": command}), 422, "command")
    assert not ToolServer.objects.filter(slug="outlet").exists()


@override_settings(AGENTSITE_ALLOW_STDIO_SERVERS=True)
def test_a_server_that_nobody_listens_at(world: World, as_: As) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets this port meanwhile
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"
        problem(as_("admin").put("/tool-servers/outlet", {"transport": "http", "url": url}), 422, "url")
    assert not ToolServer.objects.filter(slug="outlet").exists()


def test_a_private_address_is_not_asked(world: World, as_: As) -> None:
    for url in ("http://127.0.0.1:9/mcp", "http://169.254.169.254/latest"):
        problem(as_("admin").put("/tool-servers/outlet", {"transport": "http", "url": url}), 422, "url")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({}, "transport"),
        ({"transport": "carrier pigeon"}, "transport"),
        ({"transport": "stdio"}, "body"),
        ({"transport": "stdio", "command": "ls"}, "command"),
        ({"transport": "http"}, "body"),
        ({"transport": "http", "url": "ftp://tools.harborpine.example"}, "body"),
        ({"transport": "http", "url": "https://tools.harborpine.example", "command": ["ls"]}, "body"),
        ({"transport": "http", "url": "https://tools.harborpine.example", "headers": {"X-Key": 7}}, "headers.X-Key"),
        ({"transport": "http", "url": "https://tools.harborpine.example", "token": "x"}, "token"),
    ],
)
def test_a_server_that_can_not_be(world: World, as_: As, config: dict[str, Any], field: str) -> None:
    problem(as_("admin").put("/tool-servers/outlet", config), 422, field)
    assert ToolServer.objects.count() == 1


def test_a_constant_number_of_queries(world: World, as_: As) -> None:
    viewer, admin = as_("viewer"), as_("admin")
    answer(viewer.get("/agents"))

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            answer(viewer.get("/agents"))
        return len(captured)

    before = queries()
    for number in range(3):
        answer(admin.put(f"/agents/sorter-{number}", SORTER), 201)
    assert queries() == before
