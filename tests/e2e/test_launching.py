"""The launch form goes by script: the live page comes without a new document, and nothing is lost when that fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.conftest import Windows
from tests.e2e.steps_on_page import is_live
from tests.site import Site
from tests.up import eventually

TASK = "Look at ticket T-4101 only."
LAUNCH = "[data-launch]"


@pytest.fixture
def page(site: Site, windows: Windows) -> Page:
    site.parked()  # a team without runs is welcomed instead
    page = windows.open()
    page.goto(f"{site.url}/")
    page.fill("#task", TASK)
    page.evaluate("window.sameDocument = true")
    return page


def test_the_live_page_is_whole_and_the_way_back_leads_to_the_form(page: Page, site: Site) -> None:
    page.click(LAUNCH)
    page.wait_for_url("**/runs/*/")
    is_live(page)
    expect(page.locator("#steps > .step[data-seq]").nth(2)).to_be_visible()
    assert page.evaluate("window.sameDocument")
    expect(page.locator(".run-task")).to_contain_text(TASK)
    expect(page.locator('.nav-item[aria-current="page"]')).to_contain_text("Runs")
    page.keyboard.press("Control+k")
    expect(page.locator("#palette")).to_be_visible()
    page.keyboard.press("Escape")
    run_url = page.url

    page.go_back()
    expect(page.locator("#launch-form")).to_be_visible()
    assert page.url == f"{site.url}/"

    page.go_forward()
    expect(page.locator(".run-task")).to_contain_text(TASK)
    assert page.url == run_url


def test_bad_input_is_said_on_the_form_with_everything_typed(page: Page, windows: Windows) -> None:
    windows.expect_complaint("422")
    page.fill("#cost", "-4")
    page.click(LAUNCH)
    expect(page.locator("#cost-error")).to_be_visible()
    expect(page.locator("#task")).to_have_value(TASK)
    expect(page.locator("#cost")).to_have_value("-4")


def test_a_server_that_does_not_answer_is_said_and_the_button_works_again(page: Page, windows: Windows) -> None:
    windows.expect_complaint("ERR_FAILED")
    page.route("**/", lambda route: route.abort() if route.request.method == "POST" else route.fallback())
    page.click(LAUNCH)
    expect(page.locator("#toasts")).to_contain_text("did not answer")
    expect(page.locator(LAUNCH)).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#task")).to_have_value(TASK)


def test_a_page_that_does_not_come_this_way_is_opened_as_usual(page: Page, windows: Windows) -> None:
    windows.expect_complaint("503")
    page.route("**/runs/*/", first(lambda route: route.fulfill(status=503)))
    page.click(LAUNCH)
    expect(page.locator(".run-task")).to_contain_text(TASK)
    assert page.evaluate("window.sameDocument") is None


def first(answer: Callable[[Route], None]) -> Callable[[Route], None]:
    asked: list[Route] = []

    def handle(route: Route) -> None:
        asked.append(route)
        answer(route) if len(asked) == 1 else route.fallback()

    return handle


def test_without_scripts_the_form_leads_to_the_run(site: Site, windows: Windows) -> None:
    site.parked()
    page = windows.open(java_script_enabled=False)
    page.goto(f"{site.url}/")
    page.fill("#task", TASK)
    page.click(LAUNCH)
    page.wait_for_url("**/runs/*/")
    eventually(lambda: TASK in page.content())
