"""A whole trace leaves in pieces, and is the same text as if it had been made at once."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.access import access_for_user
from accounts.models import User
from runs.asked import Note
from runs.models import Agent, Run
from tests.traces.factories import make_model_step, make_run, make_step
from traces import api, json_parts, whole
from traces.json_parts import COMPACT, READABLE, Layout, written

LAYOUTS = pytest.mark.parametrize("layout", [COMPACT, READABLE], ids=["compact", "readable"])
ITEMS = [{"n": 1, "text": 'two\nlines, "quoted" \u00e9 \u2028'}, {"deep": {"list": [1, [], {}], "none": None}}, [], 3]


def around(items: list[Any]) -> dict[str, Any]:
    return {"task": 'a "task"\nof two lines', "deep": [{"items": items, "after": [{}]}], "count": len(items)}


@LAYOUTS
@pytest.mark.parametrize("count", range(len(ITEMS) + 1))
def test_pieces_are_the_text_of_the_whole(layout: Layout, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items: list[Any] = ITEMS[:count]
    expected = json.dumps(
        around(items) | {"count": "?"}, indent=layout.indent, ensure_ascii=layout.ensure_ascii
    ).encode()
    for size in (1, 64 * 1024):
        monkeypatch.setattr(json_parts, "PIECE", size)
        assert b"".join(written(lambda held: around(held) | {"count": "?"}, items, layout)) == expected


def test_what_stands_behind_the_list_may_be_summed_on_the_way() -> None:
    seen: list[int] = []

    def items() -> Any:
        for number in (2, 3):
            seen.append(number)
            yield {"n": number}

    pieces = written(lambda held: {"items": held, "sum": sum(seen)}, items(), COMPACT)
    assert json.loads(b"".join(pieces)) == {"items": [{"n": 2}, {"n": 3}], "sum": 5}


@pytest.fixture
def run(agent: Agent, dana: User) -> Run:
    run = make_run(agent, dana, created=timezone.now(), task='Look after "ORD-1"\nand \u00e9')
    for number in range(5):
        make_model_step(run, "0.01")
        make_step(run, output={"page": number, "text": "line\nline"})
    make_step(run, "model", model="gone", cost_usd=None, score=0.5)
    Note.objects.create(team=run.team, run=run, author=dana, text="Seen")
    return run


@LAYOUTS
@pytest.mark.parametrize("shape", ["json", "otlp"])
def test_however_it_is_read_and_cut_a_trace_is_the_same(
    run: Run, dana: User, shape: Literal["json", "otlp"], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = access_for_user(dana)
    at_once = b"".join(api.trace(access, run.id, shape, layout)[1])
    monkeypatch.setattr(whole, "AT_ONCE", 3)
    monkeypatch.setattr(json_parts, "PIECE", 10)
    pieces = list(api.trace(access, run.id, shape, layout)[1])
    assert b"".join(pieces) == at_once
    assert len(pieces) > 10
    again = json.dumps(json.loads(at_once), indent=layout.indent, ensure_ascii=layout.ensure_ascii)
    assert at_once.decode() == again


def test_it_is_read_as_it_is_asked_for(run: Run, dana: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "AT_ONCE", 2)
    monkeypatch.setattr(json_parts, "PIECE", 1)
    access = access_for_user(dana)
    with CaptureQueriesContext(connection) as queries:
        assert len(list(api.trace(access, run.id, "otlp")[1])) > 11
    assert len(queries) == 1 + 1 + 6  # the run, its sums, eleven steps two at a time
    with CaptureQueriesContext(connection) as queries:
        _, pieces = api.trace(access, run.id, "json")
        next(pieces)
        after_the_first = len(queries)
        list(pieces)
    assert len(queries) == after_the_first + 5  # eleven steps, two at a time


def test_a_trace_without_steps(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    made = json.loads(b"".join(api.trace(access_for_user(dana), run.id)[1]))
    assert (made["steps"], made["total_tokens"], made["total_cost_usd"]) == ([], 0, "0.00")
    spans = json.loads(b"".join(api.trace(access_for_user(dana), run.id, "otlp")[1]))
    assert len(spans["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 1
