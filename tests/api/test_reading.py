"""`/traces` and `/costs`: shapes, filters and what can't be read."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from runs.models import Run
from tests.api.client import answer, problem
from tests.api.conftest import As
from tests.approvals import factories as make
from tests.approvals.factories import World
from tests.traces.factories import make_model_step, make_step

TRACE = {"trace_id", "task", "plan", "steps", "total_tokens", "total_cost_usd", "total_duration_ms", "final_status"}
COST = {"runs", "cost", "p50", "p95", "tokens", "cache_saved_usd", "unpriced_steps"}


def ended(world: World, word: str = "kettle") -> Run:
    now = timezone.now()
    run = make.make_run(
        world,
        status="completed",
        stop_reason="done",
        started_at=now - dt.timedelta(seconds=9),
        ended_at=now,
        waiting_since=None,
        task_type="refunds",
    )
    make_model_step(run, cost="0.0123")
    make_step(run, tool="shop.get_order", output={"note": f"a dented {word}"})
    make_model_step(run, cost="0.02")
    return run


def test_a_whole_trace(world: World, as_: As) -> None:
    run = ended(world)
    trace = answer(as_("viewer").get(f"/traces/{run.id}"))
    assert set(trace) >= TRACE
    assert (trace["trace_id"], trace["final_status"], trace["total_cost_usd"]) == (str(run.id), "completed", "0.0323")
    assert [step["seq"] for step in trace["steps"]] == [1, 2, 3]
    assert trace["total_tokens"] == sum(
        step[name]
        for step in trace["steps"]
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    )
    otlp = answer(as_("viewer").get(f"/traces/{run.id}", format="otlp"))
    assert otlp["resourceSpans"]
    problem(as_("viewer").get(f"/traces/{run.id}", format="xml"), 422, "format")


def test_a_search_finds_a_word_of_a_tools_output(world: World, as_: As) -> None:
    run = ended(world, "samovar")
    ended(world, "toaster")
    found = answer(as_("viewer").get("/traces", q="samovar"))
    assert {"items", "reading", "approximate_total", "next"} <= set(found)
    (hit,) = found["items"]
    assert set(hit) == {"run", "matches"}
    assert hit["run"]["id"] == str(run.id)
    assert any("samovar" in match["text"] for match in hit["matches"])
    assert answer(as_("outsider").get("/traces", q="samovar"))["items"] == []


def test_a_query_that_can_not_be_read(world: World, as_: As) -> None:
    refused = problem(as_("viewer").get("/traces", q="cost:>much"), 422, "q")
    assert isinstance(refused["position"], int)
    assert "suggestion" in refused


def test_aggregates(world: World, as_: As) -> None:
    ended(world)
    ended(world)
    found = answer(as_("viewer").get("/traces/aggregate", by="agent"))
    (row,) = found["rows"]
    assert (row["agent"], row["count"], row["cost"]) == ("refund-desk", 2, "0.0646")
    assert {"cost_p50", "cost_p95", "duration_ms_p50", "duration_ms_p95"} <= set(row)
    problem(as_("viewer").get("/traces/aggregate", by="shoe-size"), 422, "by")


@pytest.mark.parametrize("by", ["task_type", "agent", "model", "user", "tool", "day", "week"])
def test_costs_sum_up_to_the_steps(world: World, as_: As, by: str) -> None:
    ended(world)
    report = answer(as_("viewer").get("/costs", by=by))
    assert all(set(row) >= COST for row in report["rows"])
    assert sum(Decimal(row["cost"]) for row in report["rows"]) == Decimal("0.0323")
    assert report["total"]["cost"] == "0.0323"


def test_costs_as_csv(world: World, as_: As) -> None:
    ended(world)
    response = as_("viewer").get("/costs", by="agent", format="csv")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(response.content.decode())))
    assert rows[0]["agent"] == "refund-desk"
    assert Decimal(rows[0]["cost"]) == Decimal("0.0323")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"by": "shoe-size"}, "by"),
        ({"from": "yesterday-ish"}, "from"),
        ({"to": "2026-02-31"}, "to"),
        ({"format": "xlsx"}, "format"),
        ({"from": "2026-01-01\x00"}, "from"),
    ],
)
def test_a_cost_report_that_can_not_be(world: World, as_: As, query: dict[str, str], field: str) -> None:
    problem(as_("viewer").get("/costs", **query), 422, field)


@pytest.mark.parametrize("path", ["/runs", "/traces", "/traces/{}", "/runs/{}", "/runs/{}/steps", "/costs"])
def test_a_constant_number_of_queries(world: World, as_: As, path: str) -> None:
    viewer, run = as_("viewer"), ended(world)
    path = path.format(run.id)
    answer(viewer.get(path))

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            answer(viewer.get(path))
        return len(captured)

    before = queries()
    for _ in range(3):
        ended(world)
        make_step(run)
    assert queries() == before


@pytest.mark.parametrize("path", ["/runs", "/traces?q=kettle"])
def test_a_list_does_not_read_each_agents_whole_definition(world: World, as_: As, path: str) -> None:
    ended(world)
    with CaptureQueriesContext(connection) as captured:
        assert answer(as_("viewer").get(path))["items"]
    read = " ".join(query["sql"] for query in captured)
    assert '"runs_agentversion"."number"' in read
    assert not re.search(r'"definition"(, "| FROM)', read), "its name may be taken out of it"
