"""The form for a fork in a browser: from a step's row to a run of its own, with another task, model and tool output."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.axe import problems
from tests.e2e.conftest import Windows
from tests.e2e.steps_on_page import is_live
from tests.site import Site

TASK = "Say how many requests there are."
NO_TICKETS: dict[str, list[str]] = {"tickets": []}


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}}])
def test_a_step_is_forked_with_another_output(
    site: Site, open_run: Callable[..., Page], windows: Windows, options: dict[str, object]
) -> None:
    run_id = site.parked()
    listed = next(step for step in site.steps(run_id) if step["tool"] == "shop.list_tickets")
    page = open_run(run_id, **options)
    row = page.locator(f'#steps > .step[data-seq="{listed["seq"]}"]')
    row.locator("summary").click()
    row.get_by_role("link", name="Fork from here").click()
    page.wait_for_url("**/fork/**")
    assert json.loads(page.locator("#output").input_value()) == listed["output"]
    assert problems(page, "fork") == []

    page.fill("#from-seq", "1")
    page.get_by_role("button", name="Show step").click()
    expect(page.locator("form.fork-form")).to_contain_text("Step 1 of")
    expect(page.locator("#output")).to_have_count(0)
    page.fill("#from-seq", str(listed["seq"]))
    page.get_by_role("button", name="Show step").click()

    windows.expect_complaint("422")
    page.fill("#output", json.dumps(NO_TICKETS))
    page.fill("#task", "")
    page.get_by_role("button", name="Fork", exact=True).click()
    expect(page.locator("#task-error")).to_be_visible()
    assert json.loads(page.locator("#output").input_value()) == NO_TICKETS, "nothing typed is lost"

    page.fill("#task", TASK)
    page.fill("#model", "claude-haiku-5-5")
    page.get_by_role("button", name="Fork", exact=True).click()
    page.wait_for_url(lambda url: "/fork/" not in url and run_id not in url)
    is_live(page)
    expect(page.locator(".run-task")).to_contain_text(TASK)
    made = page.url.rstrip("/").rsplit("/", 1)[-1]
    run = site.api(f"/runs/{made}")
    assert (run["forked_from"], run["task"]) == (run_id, TASK)
    assert site.steps(made)[listed["seq"] - 1]["output"] == NO_TICKETS
