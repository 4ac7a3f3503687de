"""What no caller may get through: each is a problem document at the right field, and nothing is stored."""

from __future__ import annotations

from typing import Any

import pytest

from runs.models import Run
from tests.api.client import Caller, answer, fields_of, problem
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World

LAUNCH: dict[str, Any] = {"agent": "refund-desk", "task": "Sort the tickets."}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"agent": "nobody"}, "agent"),
        ({"agent": ""}, "agent"),
        ({"agent": None}, "agent"),
        ({"agent": "x" * 81}, "agent"),
        ({"task": ""}, "task"),
        ({"task": " \n\t "}, "task"),
        ({"task": "x" * 1_000_000}, "task"),
        ({"task": "ä" * 100_001}, "task"),
        ({"task": "a\x00b"}, "task"),
        ({"task": "\ud83d"}, "task"),
        ({"task": 7}, "task"),
        ({"task": ["Sort"]}, "task"),
        ({"mode": "yolo"}, "mode"),
        ({"limits": {"max_steps": -5}}, "limits.max_steps"),
        ({"limits": {"max_steps": 1.5}}, "limits.max_steps"),
        ({"limits": {"max_cost_usd": 0}}, "limits.max_cost_usd"),
        ({"limits": {"max_cost_usd": "NaN"}}, "limits.max_cost_usd"),
        ({"limits": {"max_cost_usd": "Infinity"}}, "limits.max_cost_usd"),
        ({"limits": {"max_seconds": 10**12}}, "limits.max_seconds"),
        ({"limits": {"max_dollars": 3}}, "limits.max_dollars"),
        ({"limits": "none"}, "limits"),
        ({"task_type": "x" * 81}, "task_type"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"note": ["a\x00"]}}, "metadata.note.0"),
        ({"metadata": {"a\x00": 1}}, "metadata"),
        ({"colour": "blue"}, "colour"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_launch_that_can_not_be(world: World, as_: As, change: dict[str, Any], field: str) -> None:
    refused = problem(as_("operator").post("/runs", {**LAUNCH, **change}), 422, field)
    assert len(refused["detail"]) < 500, "what was sent is not sent back at length"
    assert not Run.objects.exists()


def test_every_wrong_field_is_named_at_once(world: World, as_: As) -> None:
    body = {"agent": "nobody", "task": "", "limits": {"max_steps": -1, "max_seconds": 0}}
    problem(as_("operator").post("/runs", body), 422, "agent", "task", "limits.max_steps", "limits.max_seconds")


def test_a_missing_field(world: World, as_: As) -> None:
    problem(as_("operator").post("/runs", {"agent": "refund-desk"}), 422, "task")
    problem(as_("operator").post("/runs", {}), 422, "agent", "task")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"agent": "refund-desk", "task": "x",}',
        b"\xff\xfe\xff",
        b"[" * 100_000,
        b'{"task": NaN}',
        b'{"task": "a", "task": "b"}',
    ],
    ids=["open", "words", "comma", "bytes", "deep", "nan", "name twice"],
)
def test_broken_json(world: World, as_: As, body: bytes) -> None:
    problem(as_("operator").call("POST", "/runs", body), 400)
    assert not Run.objects.exists()


@pytest.mark.parametrize("body", [b"[]", b"7", b'"x"', b"null"])
def test_json_that_is_no_object(world: World, as_: As, body: bytes) -> None:
    problem(as_("operator").call("POST", "/runs", body), 422, "body")


def test_no_body_at_all(world: World, as_: As) -> None:
    response = as_("operator").post("/runs")
    problem(response, 422, *fields_of(response))


@pytest.mark.parametrize(
    ("value", "field"), [("1e999", "metadata.n"), ('{"a":' * 70 + "1" + "}" * 70, "metadata.n" + ".a" * 58)]
)
def test_json_that_the_database_could_not_hold(world: World, as_: As, value: str, field: str) -> None:
    body = b'{"agent": "refund-desk", "task": "x", "metadata": {"n": %s}}' % value.encode()
    problem(as_("operator").call("POST", "/runs", body), 422, field)
    assert not Run.objects.exists()


def test_a_body_that_is_too_large(world: World, as_: As) -> None:
    problem(as_("operator").post("/runs", {**LAUNCH, "task": "x" * 3_000_000}), 413)


def test_numbers_of_any_size_are_kept_as_they_are(world: World, as_: As) -> None:
    metadata = {"n": 10**30, "x": 0.1, "deep": {"list": [[1]]}, "é": "🎉"}
    run = answer(as_("operator").post("/runs", {**LAUNCH, "metadata": metadata}), 201)
    assert answer(as_("viewer").get(f"/runs/{run['id']}"))["metadata"] == metadata


# --- lists -----------------------------------------------------------------------------------------------------------

LISTS = ("/runs", "/agents", "/approvals", "/traces")


@pytest.mark.parametrize("path", LISTS)
def test_a_limit_that_can_not_be(world: World, as_: As, path: str) -> None:
    viewer = as_("viewer")
    for limit in (-1, 0, 201, "many", 10**30, ""):
        problem(viewer.get(path, limit=limit), 422, "limit")


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_that_was_never_given_out(world: World, as_: As, path: str) -> None:
    make.make_full_batch(world)
    viewer = as_("viewer")
    for cursor in (
        "x",
        "!!!!",
        "7",
        "é",
        "AAAA",
        "fHw=",
        "MjAyNi0wMS0wMXw3",  # 2026-01-01|7
        # 9999-12-31T23:59:59-23:59|…, a moment that no calendar in UTC has
        "OTk5OS0xMi0zMVQyMzo1OTo1OS0yMzo1OXwwMDAwMDAwMC0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDA=",
    ):
        problem(viewer.get(path, cursor=cursor), 422, "cursor")


@pytest.mark.parametrize("path", LISTS)
def test_a_nul_in_the_query(world: World, as_: As, path: str) -> None:
    problem(as_("viewer").get(path, status="\x00", q="\x00", agent="\x00"), 422, "status", "q", "agent")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("POST", "/runs/x/y/z"), ("GET", "/"), ("PUT", "/runs/")]
)
def test_an_address_that_is_not_there(world: World, as_: As, method: str, path: str) -> None:
    problem(as_("admin").call(method, path), 404)


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/runs"), ("PATCH", "/agents/refund-desk"), ("GET", "/runs/x/pause")]
)
def test_a_method_that_is_not_there(world: World, as_: As, method: str, path: str) -> None:
    response = as_("admin").call(method, path)
    problem(response, 405)
    assert response["Allow"]


def test_a_failure_inside_is_a_problem_too(
    world: World, as_: As, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret is swordfish")

    monkeypatch.setattr("runs.presenters.runs_json", broken)
    make.make_run(world)
    refused = problem(as_("viewer").get("/runs"), 500)
    assert "swordfish" not in refused["detail"]
    assert "swordfish" in caplog.text


def test_a_head_is_a_get_without_a_body(world: World, as_: As) -> None:
    viewer = as_("viewer")
    assert viewer.call("HEAD", "/runs").status_code == 200
    assert viewer.call("HEAD", "/runs").content == b""
    assert viewer.call("HEAD", "/agents/nobody").status_code == 404
    assert Caller(None).call("HEAD", "/runs").status_code == 401
