"""The pages as people and browsers get them: who may see what, how many queries, and that hostile text stays text."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import uuid
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Team, User
from accounts.schemas import Role
from runs.models import Agent, Run, Step, StepPayload
from tests.traces.factories import (
    make_action,
    make_agent,
    make_model_step,
    make_run,
    make_step,
    make_team,
    make_user,
)
from traces import trace_page

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7|add:1 }}\u202e"
PATHS = (
    "/traces/",
    "/traces/?q=needle",
    "/traces/{run}/",
    "/traces/{run}/steps/2/",
    "/traces/{run}/rows/?first=0&end=9",
    "/traces/{run}/export.json",
    "/traces/{run}/export.json?format=otlp",
    "/costs/",
    "/costs/?by=model&range=7d",
    "/costs/export.csv",
)


def sign_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def run(agent: Agent, dana: User) -> Run:
    """Today's run, so that the default period of the costs holds it."""
    run = make_run(
        agent,
        dana,
        created=timezone.now() - dt.timedelta(minutes=30),
        seconds=600,
        task=f"Task {HOSTILE}",
        task_type=f"type {HOSTILE}",
        status="stopped",
        stop_reason="loop",
        stop_detail=f"Stopped: {HOSTILE}",
        result=f"result {HOSTILE}",
        plan={"steps": [{"title": f"plan {HOSTILE}", "status": "done", "assumptions": []}]},
    )
    make_model_step(run, "0.05", reasoning=f"why {HOSTILE}", plan_step=0, model=f"m {HOSTILE}", price_id="")
    make_step(
        run,
        tool=f"tool {HOSTILE}",
        title=f"tool {HOSTILE}",
        summary=f"needle {HOSTILE}",
        status="timeout",
        input={HOSTILE: HOSTILE},
        output={"needle": [HOSTILE, 1, True, None]},
        reasoning=HOSTILE,
        error=HOSTILE,
        plan_step=0,
        tool_call_id="call",
        confidence=0.9,
    )
    make_step(run, "evaluate", score=0.2, summary=HOSTILE, title=HOSTILE, model="claude-sonnet-5-5", price_id="")
    make_step(run, "approval", title="Wait for a person", summary=HOSTILE, duration_ms=300_000, after=10)
    make_action(run, note=HOSTILE)
    return run


@pytest.mark.parametrize("role", list(Role))
def test_every_role_of_the_team_may_read(run: Run, team: Team, role: Role) -> None:
    client = sign_in(make_user(team, "reader", role=role))
    assert {path: client.get(path.format(run=run.id)).status_code for path in PATHS} == dict.fromkeys(PATHS, 200)


@pytest.mark.parametrize("path", [path for path in PATHS if "{run}" in path])
def test_a_run_of_another_team_is_not_there(run: Run, path: str) -> None:
    otto = make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand")
    assert sign_in(otto).get(path.format(run=run.id)).status_code == 404


@pytest.mark.parametrize("path", ["/traces/", "/traces/?q=needle", "/costs/", "/costs/?by=tool", "/costs/export.csv"])
def test_lists_of_another_team_hold_nothing_of_this_one(run: Run, path: str) -> None:
    otto = make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand")
    text = sign_in(otto).get(path).content.decode()
    assert "needle &lt;script" not in text
    assert "refund-desk" not in text
    assert "$0.05" not in text


@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_is_asked_to_sign_in(run: Run, path: str) -> None:
    response = Client().get(path.format(run=run.id))
    assert response.status_code == 302
    assert "/accounts/login/" in response["Location"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_changed_by_a_post(run: Run, dana: User, path: str) -> None:
    assert sign_in(dana).post(path.format(run=run.id)).status_code == 405


def test_what_is_not_there_is_404(run: Run, dana: User) -> None:
    client = sign_in(dana)
    assert client.get(f"/traces/{uuid.uuid4()}/").status_code == 404
    assert client.get(f"/traces/{run.id}/steps/99/").status_code == 404
    assert client.get(f"/traces/{run.id}/steps/99/", headers={"HX-Request": "true"}).status_code == 404


def main_of(page: str) -> str:
    """What is ours of a page: not the frame round it."""
    return page.partition("<main")[2].partition("</main>")[0] or page


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}])
@pytest.mark.parametrize(
    "path",
    [
        "/traces/",
        "/traces/?q=needle",
        "/traces/?q=%3Cscript%3E",
        "/traces/?q=foo:%3Cscript%3E",
        "/costs/",
        "/costs/?by=tool",
    ]
    + ["/costs/?by=model", "/traces/{run}/"]
    + [f"/traces/{{run}}/steps/{seq}/" for seq in (1, 2, 3, 4)],
)
def test_hostile_text_is_shown_as_text(run: Run, dana: User, path: str, headers: dict[str, str]) -> None:
    page = main_of(sign_in(dana).get(path.format(run=run.id), headers=headers).content.decode())
    assert "<script>alert" not in page
    assert "<script>" not in page.replace('<script type="module"', "")
    assert "<img" not in page
    assert "\u202e" not in page
    assert "style=" not in page
    assert " onerror=" not in page.replace("&lt;img src=x onerror=alert(2)&gt;", "")


def test_the_pages_ask_as_much_of_the_database_for_many_rows_as_for_few(agent: Agent, dana: User) -> None:
    client = sign_in(dana)
    client.get("/traces/?q=needle")  # PostgreSQL's statistics are read once in a while, whatever there is to find
    counts: dict[str, set[int]] = {}
    for size in (2, 6):
        for _ in range(size):
            run = make_run(agent, dana, created=timezone.now() - dt.timedelta(hours=1))
            for index in range(size):
                make_model_step(run)
                make_step(run, tool="shop.get_order", output=f"needle {index}", summary="x")
        for path in ("/traces/", "/traces/?q=needle", f"/traces/{run.id}/", f"/traces/{run.id}/steps/2/", "/costs/"):
            with CaptureQueriesContext(connection) as queries:
                assert client.get(path).status_code == 200
            counts.setdefault(path.replace(str(run.id), "run"), set()).add(len(queries))
    assert all(len(found) == 1 for found in counts.values()), counts


# --- search ----------------------------------------------------------------------------------------------------------


def test_a_word_of_a_tools_output_finds_the_run_and_links_to_its_step(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana, task="Late deliveries")
    make_step(run, tool="carrier.track", output={"scan": "left at the depot"})
    page = sign_in(dana).get("/traces/?q=depot").content.decode()
    assert f'href="/traces/{run.id}/steps/1/"' in page
    assert "<mark>depot</mark>" in page
    assert "some text mentions “depot”" in page


def test_an_unreadable_query_is_pointed_at_and_can_be_mended_with_a_click(run: Run, dana: User) -> None:
    response = sign_in(dana).get("/traces/?q=needle+statsu:failed")
    page = response.content.decode()
    assert response.status_code == 422
    assert '<mark class="q-unknown">statsu</mark>' in page
    assert "?q=needle+status%3Afailed" in page
    assert 'value="needle statsu:failed"' in page


def test_an_empty_result_names_what_removes_most(run: Run, dana: User) -> None:
    page = sign_in(dana).get("/traces/?q=needle+status:failed").content.decode()
    assert "Drop status:failed" in page
    page = sign_in(dana).get("/traces/?q=NOT+needle").content.decode()
    assert "Drop NOT needle" in page


def test_a_damaged_page_link_says_so(run: Run, dana: User) -> None:
    response = sign_in(dana).get("/traces/?cursor=zzz")
    assert response.status_code == 422
    assert "Start from the first page" in response.content.decode()


def test_the_next_page_holds_the_older_traces(agent: Agent, dana: User) -> None:
    for index in range(52):
        make_run(agent, dana, created=timezone.now() - dt.timedelta(minutes=index), task=f"Task number {index:02}")
    client = sign_in(dana)
    context = client.get("/traces/").context
    assert len(context["found"].hits) == 50
    page = client.get(f"/traces/{context['next_url']}", headers={"HX-Request": "true"}).content.decode()
    assert page.count("data-result") == 2
    assert "Task number 51" in page
    assert "<html" not in page


# --- trace -----------------------------------------------------------------------------------------------------------


def test_the_trace_opens_on_the_first_problem(run: Run, dana: User) -> None:
    response = sign_in(dana).get(f"/traces/{run.id}/")
    page = response.content.decode()
    assert response.context["chosen"] == 2
    assert "The loop guard stopped this run at step 4." in page
    assert 'data-problems="s2:3,s3:4"' in page


def test_of_a_long_run_a_window_of_rows_is_drawn(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana, created=timezone.now() - dt.timedelta(hours=1), seconds=3000)
    for n in range(1, 1001):
        run.last_seq = n
        Step.objects.create(
            run=run,
            seq=n,
            key=f"model:{n}",
            kind="model",
            status="error" if n == 900 else "ok",
            title=f"Decide {n}",
            model="claude-sonnet-5-5",
            cost_usd=Decimal("0.01"),
            started_at=run.created_at + dt.timedelta(seconds=n),
        )
    StepPayload.objects.bulk_create([StepPayload(step=step) for step in run.steps.all()])
    client = sign_in(dana)
    first = client.get(f"/traces/{run.id}/steps/1/").content.decode()
    assert first.count('class="span-item"') == trace_page.WINDOW
    assert f"{1001 - trace_page.WINDOW} more rows" in first
    assert 'data-problems="s900:900"' in first
    chosen = client.get(f"/traces/{run.id}/").content.decode()  # opens on its problem, with the rows round it
    assert 'id="row-s900"' in chosen
    assert "870 rows above" in chosen
    more = client.get(f"/traces/{run.id}/rows/?first=80&end=380").content.decode()
    assert more.count('class="span-item"') == 300
    assert "rows above" not in more
    assert "<html" not in more
    up = client.get(f"/traces/{run.id}/rows/?first=80&end=90&up=1").content.decode()
    assert ("80 rows above" in up, "more rows" in up) == (True, False)
    assert client.get(f"/traces/{run.id}/rows/?first=x&end=9").status_code == 404
    assert client.get(f"/traces/{run.id}/rows/?first=5000&end=9").content.decode().count("span-item") == 0
    found = client.get(f"/traces/{run.id}/?find=decide+77").content.decode()
    assert found.count('class="span-item"') == 12  # 77, 770 to 779, and the run they stand under
    assert "No step holds these words" in client.get(f"/traces/{run.id}/?find=zebra").content.decode()
    assert client.get(f"/traces/{run.id}/?first=500").content.decode().count('id="row-s510"') == 1


def test_of_very_many_rows_that_are_found_the_rest_is_counted(
    agent: Agent, dana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_page, "MORE", 5)
    monkeypatch.setattr(trace_page, "IDS_AT_ONCE", 3)
    run = make_run(agent, dana)
    for n in range(8):
        make_model_step(run)
        make_step(run, tool="shop.get_order", input={"order": 48000 + n})
    client = sign_in(dana)
    page = client.get(f"/traces/{run.id}/?find=shop.get_order").content.decode()
    assert page.count('class="span-item"') == 5
    assert "12 more rows are not shown" in page  # the run and eight turns stand above the eight calls
    page = client.get(f"/traces/{run.id}/?find=48006").content.decode()  # what a call is about
    assert page.count('id="row-s14"') == 1
    assert "not shown: write" not in page


def test_a_step_is_shown_before_it_has_finished(agent: Agent, dana: User, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(agent, dana, seconds=None)
    make_model_step(run)
    begun = {"key": "tool:1:0", "seq": 2, "kind": "tool", "title": "shop.get_order", "tool": "shop.get_order"}
    monkeypatch.setattr("runs.live.read_in_flight", lambda _: begun)
    page = sign_in(dana).get(f"/traces/{run.id}/").content.decode()
    assert "span--running" in page
    assert "/steps/2/" not in page


def test_the_pane_comes_alone_for_htmx_and_within_the_page_without(run: Run, dana: User) -> None:
    client = sign_in(dana)
    alone = client.get(f"/traces/{run.id}/steps/1/", headers={"HX-Request": "true"}).content.decode()
    whole = client.get(f"/traces/{run.id}/steps/1/").content.decode()
    back = client.get(
        f"/traces/{run.id}/steps/1/", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"}
    ).content.decode()
    assert "<html" not in alone
    assert "Reasoning" in alone
    assert "<html" in whole
    assert "<html" in back
    assert 'data-detail="1"' in whole


def test_a_wait_that_still_goes_on_is_a_band_until_now(agent: Agent, dana: User) -> None:
    now = timezone.now()
    run = make_run(
        agent,
        dana,
        created=now - dt.timedelta(minutes=20),
        seconds=None,
        status="waiting",
        waiting_since=now - dt.timedelta(minutes=10),
    )
    make_step(run, tool="shop.get_order")
    page = sign_in(dana).get(f"/traces/{run.id}/").content.decode()
    assert "Waiting for a person" in page
    assert "This run waits for a person." in page
    assert "span-fold" in page


def test_an_unpriced_step_is_never_zero(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana, created=timezone.now() - dt.timedelta(hours=1))
    make_model_step(run, None, model="unheard-of", price_id="")
    client = sign_in(dana)
    page = main_of(client.get(f"/traces/{run.id}/").content.decode())
    assert "unpriced" in page
    assert "$0.00" not in page
    row = client.get("/costs/?by=model").context["report"].rows[0]
    assert (row.cost, row.unpriced_steps) == (None, 1)


def test_a_simulated_run_is_labelled(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana, created=timezone.now() - dt.timedelta(hours=1), simulated=True)
    make_model_step(run, "0", price_id="simulated")
    client = sign_in(dana)
    assert '<span class="not-real">Simulated model</span>' in client.get(f"/traces/{run.id}/").content.decode()
    assert "1 run of 1 used the simulated model" in client.get("/costs/").content.decode()
    assert "Simulated</span>" in client.get("/traces/").content.decode()


def test_a_long_payload_is_cut_says_so_and_is_shown_whole_when_asked(agent: Agent, dana: User) -> None:
    run = make_run(agent, dana)
    make_step(run, output={"text": "x" * 20_000 + "the end"})
    client = sign_in(dana)
    page = client.get(f"/traces/{run.id}/steps/1/").content.decode()
    assert "the end" not in page
    assert "characters are not shown" in page
    assert "the end" in client.get(f"/traces/{run.id}/steps/1/?whole=output").content.decode()


def test_the_export_is_a_download_whose_totals_are_its_steps(run: Run, dana: User) -> None:
    response = sign_in(dana).get(f"/traces/{run.id}/export.json")
    trace = json.loads(response.getvalue())
    assert response["Content-Disposition"] == f'attachment; filename="trace-{run.number}.json"'
    assert Decimal(trace["total_cost_usd"]) == sum(Decimal(step["cost_usd"]) for step in trace["steps"])
    assert trace["final_status"] == "stopped"


# --- costs -----------------------------------------------------------------------------------------------------------


def test_the_costs_page_shows_the_sum_of_the_steps(agent: Agent, dana: User) -> None:
    now = timezone.now()
    for cost in ("1.10", "2.20"):
        make_model_step(make_run(agent, dana, created=now - dt.timedelta(hours=2), task_type="refund"), cost)
    make_model_step(make_run(agent, dana, created=now - dt.timedelta(days=40)), "9")
    response = sign_in(dana).get("/costs/")
    assert response.context["report"].total.cost == Decimal("3.30")
    assert "$3.30" in response.content.decode()
    days = response.context["chart"]["bars"].bars
    assert sum(bar.total for bar in days) == Decimal("3.30")


@pytest.mark.parametrize("by", ["agent", "task_type", "model", "user", "tool"])
def test_each_tab_of_the_costs_is_shown(run: Run, dana: User, by: str) -> None:
    assert sign_in(dana).get("/costs/", {"by": by}).context["report"].by == by


@pytest.mark.parametrize(
    ("period", "days"), [("7d", 7), ("30d", 30), ("custom", 30), ("nonsense", 30), ("month", None)]
)
def test_each_period_of_the_costs_is_shown(run: Run, dana: User, period: str, days: int | None) -> None:
    before = timezone.localdate()
    shown = sign_in(dana).get("/costs/", {"range": period}).context["period"]
    assert before <= shown.days[-1] <= timezone.localdate()
    assert len(shown.days) == (shown.days[-1].day if days is None else days)


def test_a_period_that_cannot_be_read_is_said_and_the_last_30_days_shown(run: Run, dana: User) -> None:
    response = sign_in(dana).get("/costs/", {"range": "custom", "from": "2026-13-99"})
    assert response.status_code == 200
    assert "is not a date" in response.content.decode()
    assert sign_in(dana).get("/costs/export.csv", {"from": "2026-13-99"}).status_code == 422


def test_a_team_without_runs_is_told_what_will_be_here(dana: User) -> None:
    client = sign_in(dana)
    assert "No runs yet" in client.get("/traces/").content.decode()
    assert "Nothing was spent" in client.get("/costs/").content.decode()


def test_the_csv_sums_to_its_last_line_and_starts_no_formula(agent: Agent, dana: User) -> None:
    now = timezone.now() - dt.timedelta(hours=1)
    for kind in ("=HYPERLINK(1)", "refund"):
        make_model_step(make_run(agent, dana, created=now, task_type=kind), "1.25")
    text = sign_in(dana).get("/costs/export.csv?by=task_type").content.decode()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["task_type"] for line in lines] == ["'=HYPERLINK(1)", "refund", "total"]
    assert sum(Decimal(line["cost"]) for line in lines[:-1]) == Decimal(lines[-1]["cost"]) == Decimal("2.50")


def test_a_row_links_to_the_search_of_its_runs(agent: Agent, dana: User) -> None:
    make_agent(agent.team, "nightly-cleanup", "Nightly cleanup")
    make_model_step(make_run(agent, dana, created=timezone.now() - dt.timedelta(hours=1), task_type="late parcel"), "1")
    client = sign_in(dana)
    line = next(line for line in client.get("/costs/?by=task_type").context["lines"] if line.row.key == "late parcel")
    assert client.get("/traces/", {"q": line.query}).context["found"].total == line.row.runs == 1


def test_what_a_sub_agent_did_stands_under_the_step_that_began_it(run: Run, agent: Agent, dana: User) -> None:
    other = make_run(agent, dana, task="Something else", parent=run)
    make_step(other, tool="shop.get_order")
    begun = make_step(run, "delegate", child_run=other)
    make_step(run, tool="delegate", child_run=other)
    page = sign_in(dana).get(f"/traces/{run.id}/").content.decode()
    assert f'data-row="{other.id}_s1" data-parent="s{begun.seq}"' in page
