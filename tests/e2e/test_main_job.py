"""The main job, from the sign-in link to the costs, as a new user does it in a browser."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from runs.engine.types import Usage
from runs.pricing import price
from runs.samples.simulated import FakeMessagesServer
from tests.e2e.axe import problems
from tests.e2e.conftest import Windows, sign_in
from tests.e2e.steps_on_page import card, is_live, see_all, status_is, step_rows
from tests.site import NOTE, Site, cost_of, running_site, sample_task, tokens_of
from tests.up import Up, free_port

TITLES = [
    "Refund $84.00 to Ines Carvalho",
    "Change 2 fields on customer C-20917",
    "Email Ines Carvalho",
    "Refund $58.00 to Amara Diallo",
]
WATCH = """() => {
  window.stayed = true;
  window.streamed = new Map();
  window.meters = new Set();
  new MutationObserver(() => {
    for (const text of document.querySelectorAll(".step-stream-text")) {
      const lengths = window.streamed.get(text.id) ?? new Set();
      window.streamed.set(text.id, lengths.add(text.textContent.length));
    }
    window.meters.add(document.getElementById("run-meters").innerText);
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
}"""


@pytest.fixture
def new_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    begun: list[Up] = []

    def start(*options: str, **settings: str) -> Site:
        begun.append(Up(tmp_path_factory.mktemp("new"), free_port(), *options, **settings))
        return Site(begun[-1])

    yield start
    for up in begun:
        up.close()


def start_and_sign_in(site: Site, page: Page) -> str:
    link = site.up.wait_for(r"http://\S+/accounts/link/\S+/").split()[-1]
    site.up.wait_until_ready()
    sign_in(page, link)
    return link


def test_the_seven_steps(
    new_site: Callable[..., Site], guest_windows: Windows, save_picture: Callable[[Page, str], None]
) -> None:
    site, page = new_site("--pace", "150"), guest_windows.open()
    link = start_and_sign_in(site, page)
    the_link_works_once(guest_windows, link)

    expect(page.get_by_role("heading", name="Watch an agent work")).to_be_visible()
    save_picture(page, "first-run")
    assert problems(page, "first run") == []
    page.get_by_role("link", name="Choose an agent and a task yourself").click()
    launch_refund_desk(page)
    run_id = page.url.rstrip("/").rpartition("/")[2]

    it_comes_without_a_reload(site, page, run_id)
    others_see_the_same(guest_windows, page)
    assert problems(page, "run, simulated") == []
    decide_the_batch(page)
    it_finishes(site, page, run_id)
    each_effect_happened_once(site, run_id)
    the_trace_shows_it_all(site, page, run_id)
    the_search_finds_it(page, run_id)
    the_costs_add_up(site, page, run_id)
    assert problems(page, "costs, simulated") == []
    assert site.up.stop() == 0


def the_link_works_once(windows: Windows, link: str) -> None:
    other = windows.open()
    windows.expect_complaint(r"410 GET .*/accounts/link/|status of 410")
    other.goto(link)
    expect(other.get_by_role("heading", level=1)).to_have_text("This link no longer signs anybody in")
    expect(other.get_by_role("button", name="Sign in as")).to_have_count(0)
    other.close()


def launch_refund_desk(page: Page) -> None:
    names = page.locator(".agent-card-name")
    expect(names.filter(has_text=re.compile("Refund desk|Supplier research|Nightly cleanup"))).to_have_count(3)
    expect(page.get_by_text("Starts now on the simulated model")).to_be_visible()
    assert problems(page, "launch, simulated") == []
    page.get_by_role("radio", name=re.compile("Refund desk")).check()
    page.get_by_role("radio", name=re.compile("Batch approvals")).check()
    expect(page.get_by_label("Task", exact=True)).to_have_value(sample_task("refund-desk"))
    page.get_by_role("button", name=re.compile("Launch Refund desk")).click()
    page.wait_for_url("**/runs/*/")


def it_comes_without_a_reload(site: Site, page: Page, run_id: str) -> None:
    """Also after the web process was killed in the middle."""
    page.evaluate(WATCH)
    is_live(page)
    expect(page.locator(".plan-step")).to_have_count(5)
    expect(page.locator("#step-6")).to_be_visible()
    streamed = page.evaluate("[...window.streamed.values()].map((lengths) => lengths.size)")
    assert max(streamed) > 2, "no text grew while a model call was in flight"
    assert page.evaluate("window.meters.size") > 3, "the meters did not move"
    status_is(page, "waiting")
    expect(page.locator("#run-waits")).to_contain_text("4 actions wait for you")
    assert page.evaluate("window.stayed"), "the page was loaded again"
    assert [row[0] for row in step_rows(page)] == [f"step-{step['seq']}" for step in site.steps(run_id)]


def others_see_the_same(windows: Windows, page: Page) -> None:
    shown = step_rows(page)
    state = page.context.storage_state()
    second = windows.open(storage_state=state)
    second.goto(page.url)
    assert step_rows(second) == shown
    second.close()
    page.reload()
    assert step_rows(page) == shown


def decide_the_batch(page: Page) -> None:
    page.locator("#run-waits").get_by_role("link", name="Review").click()
    expect(page.locator("#batch-title")).to_have_text("Refund desk wants to do 4 things")
    expect(page.locator("#batch .action-title")).to_have_text(TITLES)
    for title, previewed, risk, sure, why in (
        (TITLES[0], "Visa ending 4412", "Critical", "96%", "this tool always needs a person"),
        (TITLES[1], "preferred_contact", "Medium", "86%", "below the 90% this tool needs to run alone"),
        (TITLES[2], "Your order 48213", "High", "93%", "this tool always needs a person"),
        (TITLES[3], "Mastercard ending 0937", "Critical", "95%", "this tool always needs a person"),
    ):
        for words in (previewed, risk, sure, why):
            expect(card(page, title)).to_contain_text(words)
    refused = card(page, TITLES[3])
    refused.locator(".reject-toggle").click()
    refused.get_by_label("What should change?").fill(NOTE)
    see_all(page)
    approve = page.locator("[data-approve]")
    expect(approve).to_contain_text("Approve 3, reject 1")
    approve.click()
    expect(page.locator("#batch [data-status='rejected']")).to_have_count(1)


def it_finishes(site: Site, page: Page, run_id: str) -> None:
    page.goto(f"{site.url}/runs/{run_id}/")
    status_is(page, "completed")
    expect(page.get_by_label("The agent’s answer")).to_contain_text(NOTE)


def each_effect_happened_once(site: Site, run_id: str) -> None:
    approved = [action["id"] for action in site.batch(run_id)["actions"] if action["status"] == "succeeded"]
    ledger = site.ledger()
    assert len(approved) == 3
    assert sorted(e["tool"] for e in ledger) == ["issue_refund", "send_email", "update_customer", "update_customer"]
    assert [entry["key"] for entry in ledger if entry["key"] in approved] == approved
    assert next(entry["arguments"] for entry in ledger if entry["tool"] == "issue_refund")["order"] == "48213"


def the_trace_shows_it_all(site: Site, page: Page, run_id: str) -> None:
    page.locator("#run-actions").get_by_role("link", name="Trace").click()
    page.wait_for_url(f"**/traces/{run_id}/")
    steps = site.steps(run_id)
    shown = page.locator(".span[data-seq]").evaluate_all("(spans) => spans.map((span) => Number(span.dataset.seq))")
    assert set(shown) == {step["seq"] for step in steps}
    wait = page.locator(".span--waiting .fill-waiting")
    expect(wait).to_have_count(1)
    assert float((wait.get_attribute("width") or "0%").rstrip("%")) > 0
    seq = next(step["seq"] for step in steps if step["tool"] == "shop.get_order")
    page.locator(f".span[data-seq='{seq}']").click()
    detail = page.locator("#detail")
    expect(detail.locator(f"[data-detail='{seq}']")).to_be_visible()
    for words in ("Output", "Enamel kettle", "Duration", "Reasoning"):
        expect(detail).to_contain_text(words)


def the_search_finds_it(page: Page, run_id: str) -> None:
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/traces/")
    for words, count in (("zeppelin", 0), ("unpacked", 1)):  # the second is in the output of a tool, and nowhere else
        page.get_by_label("Search traces").fill(words)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/traces/?q={words}")
        expect(page.locator("#reading")).to_contain_text(words)
        expect(page.locator(f"#results a[href*='{run_id}']").first).to_have_count(count)


def the_costs_add_up(site: Site, page: Page, run_id: str) -> Decimal:
    steps = site.steps(run_id)
    total = site.api("/costs")["total"]
    assert (total["runs"], total["steps"], total["tokens"]) == (1, len(steps), sum(map(tokens_of, steps)))
    assert Decimal(total["cost"]) == cost_of(steps)
    page.goto(f"{site.url}/costs/?by=task_type")
    row = page.get_by_role("row", name=re.compile("refund-damaged"))
    foot = page.get_by_role("row", name=re.compile("Total"))
    for line in (row, foot):
        expect(line).to_contain_text(f"{round(total['tokens'] / 1000)}k")
        expect(line).to_contain_text(f"${Decimal(total['cost']):.2f}")
    return Decimal(total["cost"])


def test_a_server_that_was_killed_comes_back_and_the_page_catches_up(
    site: Site, windows: Windows, open_run: Callable[..., Page]
) -> None:
    site.model.pace = 150
    run_id = site.launch()
    page = open_run(run_id)
    is_live(page)
    expect(page.locator("#step-3")).to_be_visible()
    page.evaluate("window.stayed = true")
    windows.expect_complaint(r"WebSocket connection to|ERR_CONNECTION_REFUSED")
    os.kill(site.up.pid_of("uvicorn"), signal.SIGKILL)
    expect(page.locator("[data-connection]").first).to_have_attribute("data-state", "reconnecting")
    site.model.pace = 0
    is_live(page)
    status_is(page, "waiting")
    expect(page.locator(".step--flight")).to_have_count(0)
    assert page.evaluate("window.stayed"), "the page was loaded again"
    fresh = open_run(run_id)
    assert step_rows(page) == step_rows(fresh)
    assert len(step_rows(page)) == len(site.steps(run_id))


def test_who_comes_late_sees_the_text_in_flight_from_its_beginning(site: Site, open_run: Callable[..., Page]) -> None:
    site.model.pace = 8
    run_id = site.launch()
    first = open_run(run_id)
    text = first.locator("#flight-2")
    try:
        expect(text).to_contain_text(re.compile(r"\w+ \w+ \w+"))
        so_far = text.inner_text()
        late = open_run(run_id)
        expect(late.locator("#flight-2")).to_contain_text(so_far)
    finally:
        site.model.pace = 0


def test_the_same_with_a_model_of_ones_own(tmp_path: Path, guest_windows: Windows) -> None:
    with running_site(tmp_path) as site:
        assert not any("simulated" in line for line in site.up.seen)
        page = guest_windows.open()
        sign_in(page, site.sign_in_link())
        run_id = site.parked()
        page.goto(f"{site.url}/runs/{run_id}/")
        decide_the_batch(page)
        it_finishes(site, page, run_id)
        expect(page.locator(".not-real")).to_have_count(0)
        each_effect_happened_once(site, run_id)
        page.goto(f"{site.url}/?agent=refund-desk")
        expect(page.get_by_text("Starts now on claude-sonnet-5-5")).to_be_visible()
        cost = the_costs_add_up(site, page, run_id)
        expect(page.get_by_text("Simulated")).to_have_count(0)
        assert cost == billed(site.model) > 0
        assert site.model.failures == []


def billed(model: FakeMessagesServer) -> Decimal:
    """What the requests that arrived cost by list price."""
    total = Decimal(0)
    for call in model.calls:
        usage = call.usage or {}
        written = usage.get("cache_creation") or {}
        priced = price(
            call.body["model"],
            Usage(
                input_tokens=usage["input_tokens"],
                output_tokens=usage["output_tokens"],
                cache_read_tokens=usage.get("cache_read_input_tokens", 0),
                cache_write_5m_tokens=written.get("ephemeral_5m_input_tokens", 0),
                cache_write_1h_tokens=written.get("ephemeral_1h_input_tokens", 0),
            ),
            simulated=False,
            at=datetime.now(UTC),
        )
        assert priced.usd is not None
        total += priced.usd
    return total
