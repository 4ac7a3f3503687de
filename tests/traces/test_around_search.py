"""Saved searches, values to complete with, the pill of new traces, "why these?", the page of two runs."""

from __future__ import annotations

import datetime as dt
from urllib.parse import quote

import pytest
from django.db import connection
from django.http import Http404
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.access import access_for_user
from accounts.models import Team, User
from accounts.schemas import Role
from runs.errors import Invalid
from runs.models import Agent, Run
from tests.traces.factories import T0, make_agent, make_model_step, make_run, make_step, make_team, make_user
from traces.api import (
    TraceAggregate,
    TraceQuery,
    TraceSearch,
    TwoTraces,
    aggregate_traces,
    compare_traces,
    list_traces,
    why_traces,
)
from traces.models import SavedSearch
from traces.query import parse
from traces.scope import Scope
from traces.why import Why, why

NOW = T0 + dt.timedelta(days=2)
HOSTILE = "<script>alert(1)</script>"


def sign_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def marco(team: Team) -> User:
    return make_user(team, "marco", "Marco", "Ruiz", Role.OPERATOR)


@pytest.fixture
def noor(team: Team) -> User:
    return make_user(team, "noor", "Noor", "Haddad", Role.VIEWER)


@pytest.fixture
def otto(db: None) -> User:
    return make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand")


# --- saved searches --------------------------------------------------------------------------------------------------


def save(user: User, name: str = "Late", query: str = "status:failed", shared: bool = False) -> int:
    values = {"name": name, "q": query, "shared": "1" if shared else ""}
    return sign_in(user).post("/traces/saved/", values).status_code


def test_a_search_is_saved_for_oneself_or_the_team(dana: User, marco: User, noor: User, otto: User) -> None:
    assert save(dana, f"Mine {HOSTILE}") == 302
    assert save(marco, "Ours", "cost:>1", shared=True) == 302
    pages = {user: sign_in(user).get("/traces/").content.decode() for user in (dana, marco, noor, otto)}
    assert [("Mine &lt;script" in page, ">Ours<" in page) for page in pages.values()] == [
        (True, True),
        (False, True),
        (False, True),
        (False, False),
    ]
    assert HOSTILE not in pages[dana]


def test_saving_under_a_name_again_replaces_it(dana: User) -> None:
    assert save(dana) == save(dana, query="status:stopped") == 302
    assert SavedSearch.objects.get().query == "status:stopped"


@pytest.mark.parametrize(("name", "query"), [("", "x"), (" ", "x"), ("n" * 81, "x"), ("Late", "status:faild")])
def test_what_cannot_be_saved_is_said_and_nothing_is_lost(dana: User, name: str, query: str) -> None:
    answer = sign_in(dana).post("/traces/saved/", {"name": name, "q": query})
    assert answer.status_code == 422
    assert query in answer.content.decode()
    assert not SavedSearch.objects.exists()


def test_a_viewer_saves_but_does_not_share(noor: User) -> None:
    assert save(noor) == 302
    assert save(noor, "Ours", shared=True) == 403
    assert 'name="shared"' not in sign_in(noor).get("/traces/?q=x").content.decode()


def test_who_may_delete_a_saved_search(dana: User, marco: User, noor: User, otto: User) -> None:
    save(marco, "Ours", shared=True)
    save(marco, "Mine")
    ours, mine = (SavedSearch.objects.get(name=name).id for name in ("Ours", "Mine"))

    def status(user: User, saved_id: object) -> int:
        return sign_in(user).post(f"/traces/saved/{saved_id}/delete/").status_code

    assert [status(noor, ours), status(otto, ours), status(dana, mine), status(otto, mine)] == [403, 404, 404, 404]
    assert [status(dana, ours), status(marco, mine)] == [302, 302]
    assert not SavedSearch.objects.exists()
    assert sign_in(marco).get("/traces/saved/").status_code == 405


# --- values and news -------------------------------------------------------------------------------------------------


def test_values_to_complete_with_are_the_teams_own(agent: Agent, dana: User, otto: User) -> None:
    run = make_run(agent, dana, task_type="refund-late")
    make_step(run, tool="shop.get_order")
    make_model_step(run)
    found = sign_in(dana).get("/traces/values/").json()
    assert found["tool"] == ["shop.get_order"]
    assert found["model"] == ["claude-sonnet-5-5"]
    assert found["type"] == ["refund-late"]
    assert found["agent"] == ["refund-desk"]
    assert found["user"] == ["dana"]
    assert {field: values for field, values in sign_in(otto).get("/traces/values/").json().items() if values} == {
        "user": ["otto"],
        "approver": ["otto"],
        "noted_by": ["otto"],
    }


def test_new_traces_that_match_are_counted(agent: Agent, dana: User, otto: User) -> None:
    since = timezone.now()
    make_run(agent, dana, created=since - dt.timedelta(minutes=1), task="late parcel")
    make_run(agent, dana, created=since + dt.timedelta(seconds=1), task="late parcel")
    make_run(agent, dana, created=since + dt.timedelta(seconds=2), task="something else")
    client = sign_in(dana)

    def pill(who: Client, text: str) -> str:
        return who.get("/traces/new/", {"q": text, "since": since.isoformat()}).content.decode()

    assert "1 new trace<" in pill(client, "parcel")
    assert "2 new traces<" in pill(client, "")
    assert " new trace" not in pill(client, "nothing")
    assert " new trace" not in pill(sign_in(otto), "parcel")
    for bad in ({"since": "yesterday"}, {"since": "2026-11-01"}, {"since": since.isoformat(), "q": "status:"}, {}):
        assert client.get("/traces/new/", bad).status_code == 286


# --- why these -------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(agent: Agent, dana: User) -> list[Run]:
    """Twenty runs; those that failed used the carrier, whose call timed out."""
    made = []
    for number in range(20):
        failed = number % 2 == 0
        run = make_run(agent, dana, created=T0 + dt.timedelta(minutes=number))
        if failed:
            Run.objects.filter(id=run.id).update(status="failed", stop_reason="tool_error")
            run.refresh_from_db()
        make_model_step(run)
        make_step(run, tool="shop.get_order")
        if failed:
            make_step(run, tool="carrier.track", status="timeout")
        made.append(run)
    return made


def ask(user: User, text: str) -> Why:
    access = access_for_user(user)
    return why(access, parse(text, NOW), Scope(access.team.id, NOW))


def test_what_sets_the_found_runs_apart(runs: list[Run], dana: User) -> None:
    found = ask(dana, "status:failed")
    assert (found.found, found.rest) == (10, 10)
    reasons = {(reason.title, reason.value): reason for reason in found.reasons}
    tool = reasons["Tool", "carrier.track"]
    assert (tool.found, tool.rest, tool.more) == (1.0, 0.0, True)
    assert tool.query == "status:failed tool:carrier.track"
    assert ("First failing tool", "carrier.track") in reasons
    assert ("One tool after another", "shop.get_order, then carrier.track") in reasons
    assert not any(title in ("Status", "Mode", "Started by") for title, _ in reasons)
    for reason in found.reasons:
        if reason.query:
            assert ask(dana, reason.query).found == round(reason.found * 10)


def test_nothing_sets_all_runs_apart(runs: list[Run], dana: User, otto: User) -> None:
    assert ask(dana, "").reasons == ()
    assert ask(dana, "nothing").found == 0
    assert ask(otto, "").found == 0


def test_the_number_of_queries_does_not_grow(agent: Agent, runs: list[Run], dana: User) -> None:
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            ask(dana, "status:failed")
        counts.append(len(queries))
        for _ in range(5):
            make_step(make_run(agent, dana, created=T0, status="failed", stop_reason="tool_error"), tool="x")
    assert counts[0] == counts[1]


# --- pages -----------------------------------------------------------------------------------------------------------


def test_pages_of_why_and_of_two_runs(runs: list[Run], dana: User, noor: User, otto: User) -> None:
    for user in (dana, noor):
        client = sign_in(user)
        assert "carrier.track" in client.get("/traces/why/?q=status:failed").content.decode()
        assert client.get("/traces/why/?q=status:").status_code == 422
        page = client.get("/traces/compare/?run=R-1&run=R-2").content.decode()
        assert "The first divergence is" in page
        assert client.get("/traces/compare/").status_code == 200
        assert client.get("/traces/compare/?run=R-1&run=R-99").status_code == 404
    assert sign_in(otto).get(f"/traces/compare/?run={runs[0].id}&run={runs[1].id}").status_code == 404
    assert Client().get("/traces/compare/").status_code == 302


def test_hostile_text_stays_text_beside_another(agent: Agent, dana: User) -> None:
    for _ in range(2):
        make_model_step(make_run(agent, dana, task=HOSTILE), title=HOSTILE, reasoning=f"{HOSTILE}{timezone.now()}")
    page = sign_in(dana).get("/traces/compare/?run=R-1&run=R-2").content.decode()
    assert HOSTILE not in page
    assert "Reasoning differs" in page


def test_dragging_has_what_it_needs(runs: list[Run], agent: Agent, dana: User) -> None:
    page = sign_in(dana).get("/traces/?q=status:failed since:2020-01-01").content.decode()
    assert 'data-rest="status:failed"' in page
    assert 'data-seconds="' in page
    make_agent(agent.team, "other", "Other")


# --- groups ----------------------------------------------------------------------------------------------------------


def test_runs_are_grouped_by_what_their_steps_used(runs: list[Run], dana: User) -> None:
    asked = TraceAggregate(q="status:failed | by tool")
    access = access_for_user(dana)
    found = {row["tool"]: row["count"] for row in aggregate_traces(access, asked)["rows"]}
    assert found == {"shop.get_order": 10, "carrier.track": 10}
    pairs = aggregate_traces(access, TraceAggregate(by="model,status"))["rows"]
    assert {(row["model"], row["status"]): row["count"] for row in pairs} == {
        ("claude-sonnet-5-5", "failed"): 10,
        ("claude-sonnet-5-5", "completed"): 10,
    }
    page = sign_in(dana).get("/traces/?q=| by tool").content.decode()
    assert "carrier.track</th>" in page
    with pytest.raises(Invalid, match="The query says"):
        aggregate_traces(access, TraceAggregate(q="| by tool", by="model"))
    with pytest.raises(Invalid, match="aggregate"):
        list_traces(access, TraceSearch(q="| by tool"))


def test_programs_compare_and_ask_why(runs: list[Run], dana: User, otto: User) -> None:
    access = access_for_user(dana)
    found = compare_traces(access, TwoTraces(left="R-1", right="R-2"))
    assert [row["state"] for row in found["rows"]] == ["same", "same", "left"]
    assert found["first_divergence"] == 2
    with pytest.raises(Http404):
        compare_traces(access_for_user(otto), TwoTraces(left=str(runs[0].id), right=str(runs[1].id)))
    reasons = why_traces(access, TraceQuery(q="status:failed"))["reasons"]
    assert "carrier.track" in {reason["value"] for reason in reasons if reason["what"] == "Tool"}


@pytest.mark.parametrize("by", ["agent", "status", "type", "user", "version", "model", "day", "week", "type,status"])
def test_each_group_leads_to_its_runs(agent: Agent, dana: User, by: str) -> None:
    for index, kind in enumerate(("late parcel", "late parcel", "record", "")):
        created = timezone.now() - dt.timedelta(days=3 * index)
        make_model_step(make_run(agent, dana, created=created, task_type=kind, task="refund"))
    client = Client()
    client.force_login(dana, backend="django.contrib.auth.backends.ModelBackend")
    response = client.get("/traces/", {"q": f"refund OR parcel | by {by}"})
    groups = response.context["groups"]
    assert groups
    for row in groups:
        if not row["query"]:
            assert "" in row["group"].keys.values()
            continue
        assert client.get("/traces/", {"q": row["query"]}).context["found"].total == row["group"].count
        assert f'href="/traces/?q={quote(row["query"], safe="/")}"' in response.content.decode()
