"""Deciding by keyboard alone, on a phone, and without scripts; the theme, the list of keys and the palette."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.e2e.conftest import PHONE, Windows
from tests.e2e.steps_on_page import card, see_all, status_is
from tests.site import NOTE, Site
from tests.up import eventually

EMAIL, RECORD = "Email Ines Carvalho", "Change 2 fields on customer C-20917"


def statuses(site: Site, run_id: str) -> dict[str, str]:
    return {action["tool"]: action["status"] for action in site.batch(run_id)["actions"]}


def open_batch(site: Site, page: Page, run_id: str) -> Page:
    page.goto(f"{site.url}/approvals/{site.batch(run_id)['id']}/")
    return page


def test_approve_and_reject_by_keyboard_alone(site: Site, windows: Windows) -> None:
    run_id = site.parked()
    page = windows.open()
    page.goto(site.url)
    page.keyboard.press("g")
    page.keyboard.press("i")
    page.wait_for_url("**/approvals/")
    expect(page.locator("#batch .action")).to_have_count(4)
    for _ in range(4):
        page.keyboard.press("j")
    expect(card(page, "Refund $58.00")).to_be_focused()
    page.keyboard.press("r")
    page.keyboard.type(NOTE)
    page.keyboard.press("Escape")
    page.keyboard.press("k")
    expect(card(page, EMAIL)).to_be_focused()
    page.keyboard.press("x")
    expect(card(page, EMAIL).get_by_role("checkbox").first).not_to_be_checked()
    page.keyboard.press("x")
    expect(page.locator("[data-approve]")).to_contain_text(re.compile("Approve 3, reject 1|See the"))
    for _ in range(8):  # what has not been on screen is shown first, one thing for each press
        if page.locator("#batch [data-status='rejected']").count():
            break
        page.keyboard.press("a")
        page.wait_for_timeout(150)
    expect(page.locator("#batch [data-status='rejected']")).to_have_count(1)
    run = site.wait(run_id)
    assert NOTE in run["result"]
    assert sorted(action["status"] for action in site.batch(run_id)["actions"]) == ["rejected", *["succeeded"] * 3]


def test_what_is_selected_is_rejected_through_the_sheet_by_keyboard(site: Site, windows: Windows) -> None:
    run_id = site.parked()
    page = open_batch(site, windows.open(), run_id)
    expect(page.locator("[data-approve]")).to_be_visible()
    page.keyboard.press("r")
    expect(page.locator("#reject-dialog")).to_be_visible()
    page.keyboard.type("None of this, please.")
    for _ in range(6):
        if page.evaluate("document.activeElement.matches('.button--destructive')"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#batch [data-status='rejected']")).to_have_count(4)
    assert "None of this, please." in site.wait(run_id)["result"]
    assert [entry["tool"] for entry in site.ledger()] == ["update_customer"]


def test_on_a_phone_one_approves_and_rejects_with_taps(site: Site, windows: Windows) -> None:
    run_id = site.parked()
    page = windows.phone()
    page.goto(f"{site.url}/approvals/")
    page.locator(".batch-row").first.tap()
    page.wait_for_url(f"**/approvals/{site.batch(run_id)['id']}/")
    for title in (RECORD, EMAIL):
        card(page, title).get_by_role("checkbox").first.tap()
    page.get_by_role("button", name="Reject…").tap()
    sheet = page.locator("#reject-dialog")
    expect(sheet).to_be_visible()
    box = sheet.bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    assert abs(box["y"] + box["height"] - PHONE["height"]) < 2
    sheet.get_by_label("What should change?").fill(NOTE)
    sheet.get_by_role("button", name="Reject and send feedback").tap()
    expect(page.locator("#batch [data-status='rejected']")).to_have_count(2)
    for title in (RECORD, EMAIL):
        if not card(page, title).get_by_role("checkbox").first.is_checked():
            card(page, title).get_by_role("checkbox").first.tap()
    see_all(page)
    page.locator("[data-approve]").tap()
    site.wait(run_id)
    assert statuses(site, run_id) == {
        "shop.issue_refund": "rejected",
        "shop.update_customer": "succeeded",
        "shop.send_email": "cancelled",  # it says that money is on its way, so it falls with the refund
    }


def test_on_a_phone_one_pauses_goes_on_and_cancels(site: Site, windows: Windows) -> None:
    site.model.pace = 30
    run_id = site.launch()
    page = windows.phone()
    page.goto(f"{site.url}/runs/{run_id}/")
    dock = page.locator("#run-dock")
    dock.get_by_role("button", name="Pause").tap()
    expect(dock.get_by_role("button", name=re.compile("Continue|Keep running"))).to_be_visible()
    site.model.pace = 0
    status_is(page, "paused")
    dock.get_by_role("button", name="Continue").tap()
    status_is(page, "waiting")
    dock.get_by_role("button", name="Cancel").tap()
    dialog = page.locator("#cancel-run")
    expect(dialog).to_contain_text("4 actions will not run")
    dialog.get_by_role("button", name="Cancel run").tap()
    status_is(page, "cancelled")
    assert {action["status"] for action in site.batch(run_id)["actions"]} == {"cancelled"}


def test_approve_and_reject_without_scripts(site: Site, windows: Windows) -> None:
    run_id = site.parked()
    page = open_batch(site, windows.open(java_script_enabled=False), run_id)
    refused = card(page, "Refund $58.00")
    refused.locator(".reject-toggle").click()
    refused.get_by_label("What should change?").fill(NOTE)
    page.locator("[data-approve]").click()
    expect(page.locator("#batch [data-status='rejected']")).to_have_count(1)
    eventually(lambda: site.run(run_id)["status"] == "completed")
    page.goto(f"{site.url}/runs/{run_id}/")
    expect(page.get_by_label("The agent’s answer")).to_contain_text(NOTE)


def test_launch_pause_and_cancel_without_scripts(site: Site, windows: Windows) -> None:
    site.model.pace = 30
    page = windows.open(java_script_enabled=False)
    page.goto(f"{site.url}/?agent=nightly-cleanup")
    page.get_by_role("button", name=re.compile("Launch Nightly cleanup")).click()
    page.wait_for_url("**/runs/*/")
    page.locator("#run-actions").get_by_role("button", name="Pause").click()
    expect(page.locator("#run-actions").get_by_role("button", name=re.compile("Continue|Keep running"))).to_be_visible()
    page.locator("#run-actions").get_by_role("button", name="Cancel run").click()
    run_id = page.url.rstrip("/").rpartition("/")[2]
    assert site.wait(run_id)["status"] == "cancelled"


def test_the_theme_stays_and_never_flashes(site: Site, windows: Windows) -> None:
    page = windows.open()
    page.goto(f"{site.url}/runs/")
    light = background(page)
    with page.expect_response(lambda response: response.url.endswith("/accounts/theme/")):
        page.locator(".sidebar [data-theme-toggle] button").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = background(page)
    assert dark != light
    # The very document says it, before any script or stylesheet is there to change anything.
    document = page.context.request.get(f"{site.url}/costs/").text()
    assert re.search(r'<html[^>]* data-theme="dark"', document)
    page.goto(f"{site.url}/costs/", wait_until="commit")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert background(page) == dark
    with page.expect_response(lambda response: response.url.endswith("/accounts/theme/")):
        page.locator(".sidebar [data-theme-toggle] button").click()
    page.reload()
    assert background(page) == light


def background(page: Page) -> str:
    eventually(lambda: page.evaluate("document.fonts.status === 'loaded'"))
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_the_list_of_keys_and_the_palette(site: Site, windows: Windows, open_run: Callable[..., Page]) -> None:
    run_id = site.parked()
    page = open_run(run_id)
    page.keyboard.press("?")
    keys = page.locator("#shortcuts")
    expect(keys).to_be_visible()
    for words in ("Everywhere", "Jump to", "Pause or continue", "Open the trace"):
        expect(keys).to_contain_text(words)
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    page.keyboard.press("Control+k")
    page.keyboard.type("costs")
    page.keyboard.press("Enter")
    page.wait_for_url("**/costs/")
    page.keyboard.press("Control+k")
    expect(page.locator("#palette")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "/costs/" not in url)


def test_many_runs_are_decided_at_once_by_keyboard_alone(site: Site, windows: Windows) -> None:
    runs = [site.parked("supplier-research", "interactive") for _ in range(2)]
    page = windows.open()
    for _ in runs:  # each e-mail is read before it can be selected
        page.goto(f"{site.url}/approvals/actions/")
        page.get_by_role("link", name="Read it first").first.click()
        expect(page).to_have_url(re.compile("/whole"))
    page.goto(f"{site.url}/approvals/actions/")
    approve = page.locator('[data-words="Approve"]')
    expect(approve).to_be_disabled()
    for key in ("j", "x", "j", "x"):
        page.keyboard.press(key)
    expect(approve).to_have_text("Approve 2 selected")
    page.keyboard.press("a")
    expect(page.get_by_text("Nothing that matches waits")).to_be_visible()
    for run_id in runs:
        assert {action["status"] for action in site.batch(run_id)["actions"]} <= {"approved", "executing", "succeeded"}
