from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any, Literal

import pytest
from django.http import Http404
from django.utils import timezone

from accounts.access import access_for_user
from accounts.models import User
from runs.errors import Invalid
from runs.models import Agent, Run
from tests.traces.factories import make_agent, make_model_step, make_run, make_step, make_team, make_user
from traces import api, otel
from traces.tree import QueryError


@pytest.fixture
def run(agent: Agent, dana: User) -> Run:
    run = make_run(agent, dana, created=timezone.now() - dt.timedelta(hours=1), task_type="refund-late")
    make_step(run, "plan", model="claude-sonnet-5-5", input_tokens=10, output_tokens=5, cost_usd=Decimal("0.01"))
    make_model_step(run, "0.05")
    make_step(
        run,
        tool="carrier.track",
        status="timeout",
        input={"order": 1},
        output={"scan": "needle"},
        error="Timed out",
        after=3,
    )
    make_step(
        run, "evaluate", title="Evaluate the step", model="claude-sonnet-5-5", score=0.2, summary="No progress", after=5
    )
    make_step(run, "approval", title="Wait for a person", duration_ms=120_000, after=6)
    return run


def test_traces_are_listed_with_their_reading(run: Run, dana: User) -> None:
    answer = api.list_traces(access_for_user(dana), api.TraceSearch(q="needle"))
    assert answer["approximate_total"] == 1
    assert answer["next"] is None
    assert answer["reading"] == "Runs where some text mentions “needle”"
    item = answer["items"][0]
    assert item["run"]["id"] == str(run.id)
    match = item["matches"][0]
    assert (match["seq"], match["field"]) == (3, "output")
    start, end = match["hits"][0]
    assert match["text"][start:end] == "needle"
    json.dumps(answer)


def test_paging_and_refusals_of_the_list(run: Run, agent: Agent, dana: User) -> None:
    make_run(agent, dana)
    access = access_for_user(dana)
    first = api.list_traces(access, api.TraceSearch(limit=1))
    second = api.list_traces(access, api.TraceSearch(limit=1, cursor=first["next"]))
    assert {first["items"][0]["run"]["id"], second["items"][0]["run"]["id"]} == {str(r.id) for r in Run.objects.all()}
    with pytest.raises(Invalid) as refused:
        api.list_traces(access, api.TraceSearch(cursor="zzz"))
    assert set(refused.value.errors) == {"cursor"}
    with pytest.raises(QueryError):
        api.list_traces(access, api.TraceSearch(q="statsu:x"))


def whole(user: User, run: Run, shape: Literal["json", "otlp"] = "json") -> dict[str, Any]:
    _, pieces = api.trace(access_for_user(user), run.id, shape)
    return dict(json.loads(b"".join(pieces)))


def test_the_whole_trace(run: Run, dana: User) -> None:
    trace = whole(dana, run)
    named = {"trace_id", "task", "plan", "steps", "total_tokens", "total_cost_usd", "total_duration_ms", "final_status"}
    assert named <= set(trace)
    assert [step["seq"] for step in trace["steps"]] == [1, 2, 3, 4, 5]
    assert Decimal(trace["total_cost_usd"]) == Decimal("0.06")
    assert trace["total_tokens"] == 15 + 2_800 + 20_400 + 3_100 + 1_180
    assert trace["total_duration_ms"] == 60_000


def test_a_trace_of_another_team_is_not_there(run: Run) -> None:
    otto = make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand")
    for shape in ("json", "otlp"):
        with pytest.raises(Http404):
            api.trace(access_for_user(otto), run.id, shape)


def _attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {each["key"]: next(iter(each["value"].values())) for each in span["attributes"]}


def test_a_trace_as_spans_with_the_names_of_the_conventions(run: Run, dana: User) -> None:
    answer = whole(dana, run, "otlp")
    spans = answer["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert [span["name"] for span in spans] == [
        "invoke_agent Refund desk",
        "plan Refund desk",
        "chat claude-sonnet-5-5",
        "chat claude-sonnet-5-5",
        "execute_tool carrier.track",
        "chat claude-sonnet-5-5",
        "agentsite.approval Wait for a person",
    ]
    assert {span["traceId"] for span in spans} == {run.id.hex}
    ids = [span["spanId"] for span in spans]
    assert len(set(ids)) == len(ids)
    assert all(len(span_id) == 16 and int(span_id, 16) for span_id in ids)
    root, plan, planning, chat, tool, judge, wait = spans
    assert root["parentSpanId"] == ""
    assert planning["parentSpanId"] == plan["spanId"]
    assert {span["parentSpanId"] for span in (plan, chat, tool, judge, wait)} == {root["spanId"]}
    assert (root["kind"], chat["kind"], tool["kind"]) == (1, 3, 1)
    said = _attributes(chat)
    assert said[otel.INPUT_TOKENS] == str(2_800 + 20_400 + 3_100)
    assert said[otel.CACHE_READ_TOKENS] == "20400"
    assert said[otel.PROVIDER_NAME] == "anthropic"
    assert said[otel.COST_AMOUNT] == 0.05
    assert _attributes(tool)[otel.TOOL_ARGUMENTS] == '{"order": 1}'
    assert tool["status"] == {"code": 2, "message": "Timed out"}
    assert judge["events"][0]["name"] == "gen_ai.evaluation.result"
    assert _attributes(wait)[otel.APPROVAL_WAIT] == "120000"
    assert all(int(span["endTimeUnixNano"]) >= int(span["startTimeUnixNano"]) for span in spans)


def test_found_runs_are_grouped_by_up_to_two_fields(run: Run, agent: Agent, dana: User) -> None:
    other = make_run(agent, dana, status="failed", stop_reason="model_error", seconds=10)
    make_model_step(other, "1")
    access = access_for_user(dana)
    answer = api.aggregate_traces(access, api.TraceAggregate(by="agent,status"))
    assert [(row["agent"], row["status"], row["count"], row["cost"]) for row in answer["rows"]] == [
        ("refund-desk", "completed", 1, "0.06"),
        ("refund-desk", "failed", 1, "1.00"),
    ]
    assert answer["rows"][1]["duration_ms_p50"] == 10_000
    found = api.aggregate_traces(access, api.TraceAggregate(q="needle", by="type"))["rows"]
    named = api.aggregate_traces(access, api.TraceAggregate(q="needle", by="task_type"))
    assert named["by"] == ["task_type"]
    assert [{"type": row.pop("task_type"), **row} for row in named["rows"]] == found, "aliases are read here too"
    versions = api.aggregate_traces(access, api.TraceAggregate(q="needle", by="prompt,day"))["rows"]
    assert {row["prompt"].rpartition("@")[2] for row in versions} == {"1"}
    assert [(row["type"], row["count"]) for row in found] == [("refund-late", 1)]
    for wrong in ("moon", "agent,status,type", "agent,agent", ""):
        with pytest.raises(Invalid):
            api.aggregate_traces(access, api.TraceAggregate(by=wrong))


@pytest.mark.parametrize("by", ["task_type", "agent", "model", "user", "tool", "day", "week"])
def test_costs_by_each_grouping(run: Run, dana: User, by: Any) -> None:
    report = api.cost_report(access_for_user(dana), api.CostQuery(by=by))
    answer = api.costs_json(report)
    assert sum(Decimal(row["cost"]) for row in answer["rows"]) == Decimal(answer["total"]["cost"]) == Decimal("0.06")
    assert {"key", "runs", "cost", "p50", "p95", "tokens", "cache_saved_usd", "unpriced_steps"} <= set(
        answer["rows"][0]
    )
    json.dumps(answer)


def test_the_period_of_a_cost_report(run: Run, dana: User) -> None:
    access = access_for_user(dana)
    today = timezone.localdate().isoformat()
    started = timezone.localtime(run.started_at).date().isoformat()
    answer = api.costs_json(api.cost_report(access, api.CostQuery.model_validate({"from": started, "to": today})))
    assert Decimal(answer["total"]["cost"]) == Decimal("0.06")
    empty = api.costs_json(
        api.cost_report(access, api.CostQuery.model_validate({"from": "2020-01-01", "to": "2020-01-31"}))
    )
    assert (empty["rows"], empty["total"]["cost"]) == ([], "0.00")
    for wrong in ({"from": "x"}, {"from": "2026-02-01", "to": "2026-01-01"}, {"to": "9999-99-99"}):
        with pytest.raises(Invalid):
            api.cost_report(access, api.CostQuery.model_validate(wrong))


def test_rows_of_another_team_are_in_no_answer(run: Run) -> None:
    other = make_team("elsewhere", "Elsewhere")
    otto = make_user(other, "otto", "Otto", "Brand")
    make_agent(other)
    access = access_for_user(otto)
    assert api.list_traces(access, api.TraceSearch())["items"] == []
    assert api.aggregate_traces(access, api.TraceAggregate())["rows"] == []
    assert api.costs_json(api.cost_report(access, api.CostQuery()))["rows"] == []
