"""Changing what an agent proposed, then approving it as changed: by keyboard alone, on a phone, and without scripts."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import Windows
from tests.e2e.steps_on_page import card, see_all
from tests.site import Site

BEFORE, AFTER = "Refund $84.00 to Ines Carvalho", "Refund $60.00 to Ines Carvalho"
APPROVE = "[data-approve]"


@pytest.fixture
def run_id(site: Site) -> str:
    return site.parked()


def opened(site: Site, page: Page, run_id: str) -> Page:
    page.goto(f"{site.url}/approvals/{site.batch(run_id)['id']}/")
    expect(card(page, BEFORE)).to_be_visible()
    return page


def amount(page: Page) -> Locator:
    return card(page, BEFORE).get_by_label("Amount", exact=True)


def assert_changed(page: Page) -> None:
    changed = card(page, AFTER)
    expect(changed).to_contain_text(re.compile(r"84.*60", re.DOTALL))
    expect(card(page, BEFORE)).to_have_count(0)


def assert_done_as_changed(site: Site, run_id: str) -> None:
    assert site.wait(run_id)["status"] == "completed"
    (refund,) = [action for action in site.batch(run_id)["actions"] if action["args"].get("order") == "48213"]
    assert (refund["args"]["amount"], refund["status"]) == (60, "succeeded")
    assert [decision["verdict"] for decision in refund["decisions"]] == ["edit", "approve"]
    sent = [entry["arguments"] for entry in site.ledger() if entry["key"] == refund["id"]]
    assert [each["amount"] for each in sent] == [60]


def test_edit_and_approve_by_keyboard_alone(site: Site, windows: Windows, run_id: str) -> None:
    page = opened(site, windows.open(), run_id)
    page.keyboard.press("j")
    expect(card(page, BEFORE)).to_be_focused()
    page.keyboard.press("e")
    expect(amount(page)).to_be_visible()
    for _ in range(6):  # locked fields before it have no stop
        if amount(page).evaluate("(field) => field === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("sixty")
    page.keyboard.press("Control+Enter")
    windows.expect_complaint(r"422 POST .*/approvals/|status of 422")
    expect(card(page, BEFORE).locator(".field-error, [role='alert']").first).to_be_visible()
    expect(amount(page)).to_have_value("sixty")  # nothing typed is lost
    amount(page).focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("60")
    page.keyboard.press("Control+Enter")
    assert_changed(page)
    for _ in range(10):  # what has not been on screen is shown first, one thing for each press
        if not page.locator(APPROVE).is_visible():
            break
        page.keyboard.press("Shift+A")
        page.wait_for_timeout(200)
    assert_done_as_changed(site, run_id)


def test_escape_leaves_an_edit_and_changes_nothing(site: Site, windows: Windows, run_id: str) -> None:
    page = opened(site, windows.open(), run_id)
    page.keyboard.press("j")
    page.keyboard.press("e")
    expect(amount(page)).to_be_visible()
    amount(page).fill("60")
    page.keyboard.press("Escape")
    expect(card(page, BEFORE)).to_be_visible()
    expect(page.locator("[data-editing]")).to_have_count(0)
    assert {action["status"] for action in site.batch(run_id)["actions"]} == {"pending"}


def test_edit_and_approve_on_a_phone(site: Site, windows: Windows, run_id: str) -> None:
    page = opened(site, windows.phone(), run_id)
    edit = card(page, BEFORE).locator("[data-edit]").first
    box = edit.bounding_box()
    assert box
    assert min(box["width"], box["height"]) >= 44
    edit.tap()
    amount(page).fill("60")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    card(page, BEFORE).get_by_role("button", name=re.compile("Keep changes")).tap()
    assert_changed(page)
    see_all(page)
    page.locator(APPROVE).tap()
    assert_done_as_changed(site, run_id)


def test_edit_and_approve_without_scripts(site: Site, windows: Windows, run_id: str) -> None:
    page = opened(site, windows.open(java_script_enabled=False), run_id)
    card(page, BEFORE).locator("[data-edit]").first.click()
    amount(page).fill("60")
    card(page, BEFORE).get_by_role("button", name=re.compile("Keep changes")).click()
    assert_changed(page)
    page.locator(APPROVE).click()
    assert_done_as_changed(site, run_id)


def test_approving_and_rejecting_everything_without_scripts(site: Site, windows: Windows, run_id: str) -> None:
    """Each by its own button of the bar, with nothing else touched."""
    page = opened(site, windows.open(java_script_enabled=False), run_id)
    page.locator(APPROVE).click()
    expect(page.locator("#batch [data-status='pending']")).to_have_count(0)
    site.wait(run_id)
    assert {action["status"] for action in site.batch(run_id)["actions"]} == {"succeeded"}

    site.renew_shop()
    other = site.parked()
    page.goto(f"{site.url}/approvals/{site.batch(other)['id']}/")
    page.get_by_role("button", name=re.compile("^Reject")).last.click()
    expect(page.locator("#batch [data-status='rejected']")).to_have_count(4)
    site.wait(other)
    assert {action["status"] for action in site.batch(other)["actions"]} == {"rejected"}
