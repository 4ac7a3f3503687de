from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import access as accounts_access
from accounts.models import User
from runs.models import Agent, Run, SearchDocument
from tests.traces.factories import (
    T0,
    make_action,
    make_agent,
    make_model_step,
    make_run,
    make_step,
    make_team,
    make_user,
)
from traces.limits import TookTooLong, bounded
from traces.overview import overview
from traces.query import parse
from traces.search import BadCursor, Page, search
from traces.tree import QueryError

NOW = T0 + dt.timedelta(hours=2)
HOUR = dt.timedelta(hours=1)


def find(user: User, text: str, **also: Any) -> Page:
    return search(accounts_access.access_for_user(user), parse(text, NOW), now=NOW, **also)


def numbers(user: User, text: str, **also: Any) -> list[int]:
    return [hit.run.number for hit in find(user, text, **also).hits]


@pytest.fixture
def late(agent: Agent, dana: User) -> Run:
    """R-1: stopped, costly, one tool timed out."""
    run = make_run(
        agent,
        dana,
        task="Late deliveries, 9–11 Mar",
        task_type="refund-late",
        status="stopped",
        stop_reason="loop",
        seconds=588,
    )
    make_model_step(run, "0.40", reasoning="The carrier did not answer for #48102 before.", score=0.21)
    make_step(
        run,
        tool="carrier.track",
        status="timeout",
        input={"order": 48102, "mail": "ana@harborpine.example"},
        output={
            "order_id": "ORD-48213",
            "scan": {"note": "Zoë's parcel timed out twice", "url": "https://harborpine.example/s?x=1"},
        },
        error="Timed out after 15 s",
    )
    make_action(run, risk="critical", status="rejected")
    return run


@pytest.fixture
def done(agent: Agent, dana: User) -> Run:
    """R-2: completed, cheap, an hour later."""
    run = make_run(
        agent,
        dana,
        created=T0 + HOUR,
        task="Damaged in transit",
        task_type="refund-damaged",
        result="Two refunds issued",
        seconds=20,
    )
    make_model_step(run, "0.02", model="claude-haiku-5-5")
    make_step(run, tool="shop.get_order", output={"status": "delivered"})
    return run


@pytest.mark.parametrize(
    "text",
    [
        "ORD-48213",
        "ord-48213",
        "48102",
        "ana@harborpine.example",
        "https://harborpine.example/s?x=1",
        "Zoë",
        "ZOË",
        '"Zoë\'s parcel"',
        '"timed out twice"',
        "answer",  # reasoning
        '"after 15 s"',  # error
        "carrier.track",  # tool
        "deliveries",  # task
        "9–11",
        "R-1",
    ],
)
def test_a_word_of_any_text_finds_the_run(late: Run, done: Run, dana: User, text: str) -> None:
    assert numbers(dana, text) == [1]


def test_a_runs_id_finds_it(late: Run, done: Run, dana: User) -> None:
    assert numbers(dana, str(late.id)) == [1]
    assert numbers(dana, f"run:{done.id}") == [2]


def test_what_is_no_letter_and_no_digit_separates_words(late: Run, done: Run, dana: User) -> None:
    make_step(done, output="a discount of 10% on order_7")
    assert numbers(dana, "10%") == numbers(dana, "order_7") == numbers(dana, '"order 7"') == [2]
    assert numbers(dana, "1%0") == numbers(dana, "ord_r") == []


def test_words_match_whole_or_as_far_as_the_star(late: Run, done: Run, dana: User) -> None:
    assert numbers(dana, "deliv*") == numbers(dana, "deliver*") == [2, 1]
    assert numbers(dana, "deliverie*") == [1]
    assert numbers(dana, "deliv") == []
    assert numbers(dana, "ORD-482*") == [1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [2, 1]),
        ("status:stopped", [1]),
        ("status:(stopped OR completed)", [2, 1]),
        ("-status:stopped", [2]),
        ("stop:loop", [1]),
        ("-stop:loop", [2]),
        ('agent:"refund DESK"', [2, 1]),
        ("agent:refund-desk", [2, 1]),
        ("agent:refund*", [2, 1]),
        ("agent:desk", []),
        ("tool:carrier.track", [1]),
        ("tool:shop.*", [2]),
        ("-tool:shop.*", [1]),
        ("model:claude-haiku-*", [2]),
        ("type:refund-late", [1]),
        ("user:dana", [2, 1]),
        ('user:"dana okafor"', [2, 1]),
        ("user:dana@harborpine.example", [2, 1]),
        ("user:marco", []),
        ("task:damaged", [2]),
        ("cost:>0.1", [1]),
        ("cost:0.02", [2]),
        ("cost:0.02..0.4", [2, 1]),
        ("duration:>5m", [1]),
        ("duration:<5m", [2]),
        ("tokens:>10k", [2, 1]),
        ("tokens:>1M", []),
        ("score:<0.5", [1]),
        ("score:*", [1]),
        ("risk:critical", [1]),
        ("risk:>=high", [1]),
        ("risk:<high", []),
        ("kind:model", [2, 1]),
        ("has:rejection", [1]),
        ("has:timeout", [1]),
        ("has:result", [2]),
        ("-has:rejection", [2]),
        ("started:2026-03-12", [2, 1]),
        ("since:90m", [2]),
        ("until:90m", [1]),
        ("run:R-2", [2]),
        ("version:1", [2, 1]),
        ("timed delivered", []),  # of two runs
        ("timed OR delivered", [2, 1]),
        ("timed -deliveries", []),
        ("NOT (status:stopped timed)", [2]),
    ],
)
def test_the_language_finds_what_it_says(late: Run, done: Run, dana: User, text: str, found: list[int]) -> None:
    assert numbers(dana, text) == found


def test_a_run_with_unpriced_steps_is_at_least_its_sum(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    make_model_step(run, "0.10")
    make_model_step(run, None, model="somebody-elses-model", price_id="")
    assert numbers(dana, "cost:>0.05") == [1]
    assert numbers(dana, "cost:<5") == []
    assert numbers(dana, "has:unpriced") == [1]


def test_the_duration_of_a_live_run_lasts_until_now(agent: Agent, dana: User) -> None:
    make_run(agent, dana, created=NOW - HOUR, seconds=None)
    assert numbers(dana, "duration:>59m") == [1]
    assert numbers(dana, "duration:>61m") == []
    assert numbers(dana, "-duration:>61m") == [1]


def test_rows_of_another_team_are_never_found(late: Run, dana: User) -> None:
    other = make_team("elsewhere", "Elsewhere")
    otto = make_user(other, "otto", "Otto", "Brand")
    theirs = make_run(make_agent(other), otto, task="Their secret: timed out")
    make_step(theirs, tool="carrier.track", output="ORD-48213")
    make_action(theirs, risk="critical")
    for text in (
        "",
        "secret",
        "ORD-48213",
        "R-1",
        "tool:carrier.track",
        "risk:critical",
        "NOT nothing",
        f"run:{theirs.id}",
        str(theirs.id),
    ):
        assert theirs.id not in [hit.run.id for hit in find(dana, text).hits], text
        assert late.id not in [hit.run.id for hit in find(otto, text).hits], text


def test_the_match_is_shown_with_its_hits(late: Run, done: Run, dana: User) -> None:
    hit = find(dana, "timed out").hits[0]
    best = hit.matches[0]
    assert best.seq == 2
    assert next(text for text, marked in best.parts if marked).lower() == "timed out"
    assert find(dana, "status:stopped").hits[0].matches == ()


def test_the_step_that_holds_most_words_is_shown(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    make_step(run, output="a parcel")
    make_step(run, output={"text": "the red parcel was found"})
    hit = find(dana, "parcel red").hits[0]
    assert [(match.seq, match.field) for match in hit.matches] == [(2, "output"), (1, "output")]
    assert hit.matches[0].parts == [("the ", False), ("red parcel", True), (" was found", False)]


def test_hostile_text_stays_text_in_snippets(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    make_step(run, output="<script>alert(1)</script> needle")
    match = find(dana, "needle").hits[0].matches[0]
    assert match.parts[0] == ("<script>alert(1)</script> ", False)


@pytest.mark.parametrize("sort", ["newest", "costliest", "slowest", "lowest"])
def test_pages_follow_each_other_without_gap_or_repeat(agent: Agent, dana: User, sort: str) -> None:
    for index in range(7):
        run = make_run(agent, dana, created=T0 + dt.timedelta(minutes=index // 3), seconds=10 * (index % 4))
        make_model_step(run, f"0.{index % 3}1")
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        page = find(dana, "", limit=2, cursor=cursor, sort=sort)
        seen += [hit.run.number for hit in page.hits]
        cursor = page.next
    assert sorted(seen) == list(range(1, 8))
    whole = numbers(dana, "", sort=sort)
    assert seen == whole


def test_a_run_that_starts_meanwhile_does_not_shift_the_next_page(
    late: Run, done: Run, agent: Agent, dana: User
) -> None:
    first = find(dana, "", limit=1)
    make_run(agent, dana, created=T0 + 2 * HOUR)
    assert numbers(dana, "", limit=1, cursor=first.next) == [1]


@pytest.mark.parametrize("cursor", ["x", "e30", "WyJhIiwgImIiXQ", "é", "W10", "bnVsbA"])
def test_a_cursor_of_another_making_is_refused(late: Run, dana: User, cursor: str) -> None:
    with pytest.raises(BadCursor):
        find(dana, "", cursor=cursor)


def test_the_number_of_queries_does_not_grow_with_the_runs(agent: Agent, dana: User) -> None:
    find(dana, "needle")  # PostgreSQL's statistics are read once in a while, whatever there is to find
    counts = []
    for _ in range(2):
        for _ in range(5):
            run = make_run(agent, dana)
            make_step(run, output="needle here")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            page = find(dana, "needle agent:refund-desk")
            assert [hit.run.agent.slug for hit in page.hits]
            assert [hit.run.owner.label for hit in page.hits]
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 8


ENDLESS = {
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
}


def test_a_statement_that_takes_too_long_is_stopped_with_words(late: Run, dana: User) -> None:
    with pytest.raises(TookTooLong, match="stopped after"), bounded(seconds=0.05), connection.cursor() as cursor:
        cursor.execute(ENDLESS[connection.vendor])
    assert numbers(dana, "deliveries") == [1]  # and the connection is as it was


def test_no_further_statement_begins_once_the_time_is_over(late: Run, dana: User) -> None:
    with bounded(seconds=60):
        assert numbers(dana, "deliveries") == [1]
    with pytest.raises(TookTooLong), bounded(seconds=-1):
        find(dana, "deliveries")


# --- overview --------------------------------------------------------------------------------------------------------


def look(user: User, text: str) -> Any:
    return overview(accounts_access.access_for_user(user), parse(text, NOW), now=NOW)


def test_figures_are_those_of_the_found_runs(late: Run, done: Run, dana: User) -> None:
    figures = look(dana, "").figures
    assert (figures.count, figures.of) == (2, 2)
    assert figures.cost == Decimal("0.42")
    assert figures.cost_p50 == Decimal("0.21")
    assert figures.duration_p50_ms == 304_000
    assert figures.unfinished == 0.5
    narrowed = look(dana, "status:stopped").figures
    assert (narrowed.count, narrowed.of, narrowed.cost) == (1, 2, Decimal("0.40"))


def test_facets_count_and_write_queries_that_find_as_many(late: Run, done: Run, dana: User) -> None:
    facets = {facet.field: facet for facet in look(dana, "").facets}
    assert {"status", "type", "agent", "version", "user", "stop"} == set(facets)
    for facet in facets.values():
        for value in facet.values:
            assert find(dana, value.query).total == value.count, value.query


def test_bars_of_the_histogram_are_searches(late: Run, done: Run, dana: User) -> None:
    histogram = look(dana, "deliveries OR damaged").histogram
    assert sum(bar.total for bar in histogram.bars.bars) == 2
    for bar, bucket in histogram.pairs:
        assert find(dana, bucket.query).total == bar.total


def test_an_empty_result_has_no_histogram(dana: User) -> None:
    assert look(dana, "nothing").histogram is None


def test_an_agent_is_one_value_however_it_is_written(late: Run, done: Run, dana: User) -> None:
    for text in ("agent:refund-desk", 'agent:"Refund desk"'):
        facets = {facet.field: facet for facet in look(dana, text).facets}
        assert [(value.label, value.count, value.chosen) for value in facets["agent"].values] == [
            ("Refund desk", 2, True)
        ]
        assert facets["agent"].values[0].query == ""


def test_found_runs_are_held_against_their_agents_norm(late: Run, done: Run, dana: User) -> None:
    found = look(dana, "status:stopped")
    assert (found.figures.count, found.norm.count) == (1, 2)
    assert found.share_of_norm == Decimal("0.40") / Decimal("0.42")
    assert found.norm.unfinished == 0.5
    assert look(dana, "agent:refund-desk since:9d").norm is None  # it is the norm


def test_other_orders_of_what_must_be_walked_say_how_far(
    late: Run, done: Run, dana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("traces.text_index.MOST", -1)
    monkeypatch.setattr("traces.search.SAMPLE", 1)
    page = find(dana, "timed OR delivered", sort="costliest")
    assert page.only_newest == 1
    assert [hit.run.number for hit in page.hits] == [2]
    page = find(dana, "timed OR delivered", limit=1)
    assert (page.total, page.total_is_exact, page.total_is_estimate) == (2, False, True)


# --- the lowest score, and what is not searched ----------------------------------------------------------------------


def test_runs_are_ordered_by_their_lowest_score_and_those_without_come_last(agent: Agent, dana: User) -> None:
    scores = [0.9, None, 0.2, 0.2, 0.5, None]
    for index, score in enumerate(scores):
        run = make_run(agent, dana, created=T0 + dt.timedelta(minutes=index))
        make_step(run, "evaluate", score=0.95)
        make_step(run, "evaluate", score=score)
        if score is None:
            Run.objects.filter(id=run.id).update(lowest_score=None)
    assert numbers(dana, "", sort="lowest") == [4, 3, 5, 1, 6, 2]


def test_it_is_said_that_the_end_of_long_steps_is_not_searched(
    agent: Agent, dana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.documents.MOST_TEXT", 40)
    run = make_run(agent, dana)
    make_step(run, tool="shop.get_order", output="depot " + "x" * 40 + " needle")
    client = Client()
    client.force_login(dana, backend="django.contrib.auth.backends.ModelBackend")
    said = "only the first 256,000 characters were looked through"
    assert said in client.get("/traces/?q=depot").content.decode()
    assert said in client.get("/traces/?q=needle").content.decode()  # and nothing is found
    assert said not in client.get("/traces/?q=status:completed").content.decode()
    assert client.get("/traces/?q=has:more_text").context["found"].total == 1
    assert "Only the first 256,000 characters of this step" in client.get(f"/traces/{run.id}/steps/1/").content.decode()
    SearchDocument.objects.update(cut=False)
    assert said not in client.get("/traces/?q=depot").content.decode()
    assert "Only the first" not in client.get(f"/traces/{run.id}/steps/1/").content.decode()


# --- numbers in metadata ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("meta.items:>5", [1, 4]),
        ("meta.items:>=5", [1, 2, 4]),
        ("meta.items:<5", [3]),
        ("meta.items:[5 TO 12]", [1, 2]),
        ("meta.items:-5..5", [2, 3]),
        ("meta.Items:<-1", [3]),
        ("meta.order_id:>1", [1]),
        ("meta.other:>0", []),
        ("-meta.items:>5", [2, 3, 5]),
        ("meta.items:12", [1]),
    ],
)
def test_numbers_in_metadata_are_compared(agent: Agent, dana: User, q: str, found: list[int]) -> None:
    known: list[dict[str, Any]] = [{"items": 12, "order-id": "7"}, {"items": "5"}, {"items": [-2.5]}, {"Items": 1e300}]
    for metadata in (*known, {"items": "5 boxes"}):
        make_run(agent, dana, metadata=metadata)
    assert sorted(numbers(dana, q)) == found


def test_a_word_is_no_number_to_compare_metadata_with(agent: Agent, dana: User) -> None:
    with pytest.raises(QueryError, match="compared with a number"):
        find(dana, "meta.items:>many")
    assert parse("meta.items:>=2.50", NOW).reading == "Runs where the metadata “items” is at least 2.50"
