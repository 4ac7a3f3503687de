"""Taking an approval back in its window: by keyboard alone, and by thumb on a phone."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Windows
from tests.e2e.steps_on_page import see_all
from tests.site import Site

ONLY_SERVER = ("slug", "version", "created_at", "updated_at")


def put_agent(site: Site, agent: dict[str, Any]) -> None:
    body = json.dumps({name: value for name, value in agent.items() if name not in ONLY_SERVER}).encode()
    headers = {"Authorization": f"Bearer {site.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{site.url}/api/v1/agents/refund-desk", body, headers, method="PUT")
    with urllib.request.urlopen(request):
        pass


@pytest.fixture
def window(site: Site) -> Iterator[None]:
    """Approvals of the refund desk can be taken back for two minutes."""
    agent = site.api("/agents/refund-desk")
    put_agent(site, {**agent, "tools": [{**tool, "undo_s": 120} for tool in agent["tools"]]})
    yield
    put_agent(site, agent)


def statuses(site: Site, run_id: str) -> set[str]:
    return {action["status"] for action in site.batch(run_id)["actions"]}


def opened(site: Site, page: Page, run_id: str) -> Page:
    page.goto(f"{site.url}/approvals/{site.batch(run_id)['id']}/")
    expect(page.locator("[data-approve]")).to_be_visible()
    return page


def test_approve_all_and_undo_by_keyboard_alone(site: Site, windows: Windows, window: None) -> None:
    run_id = site.parked()
    page = opened(site, windows.open(), run_id)
    toast = page.locator("#toasts [data-undo-toast]")
    for _ in range(10):  # what has not been on screen is shown first, one thing for each press
        if toast.count():
            break
        page.keyboard.press("Shift+A")
        page.wait_for_timeout(200)
    expect(toast).to_contain_text("4 actions approved.")
    assert statuses(site, run_id) == {"approved"}
    page.keyboard.press("z")
    expect(page.locator("[data-approve]")).to_be_visible()
    expect(toast).to_have_count(0)
    assert statuses(site, run_id) == {"pending"}
    assert site.run(run_id)["status"] == "waiting"
    assert site.ledger() == [] or [entry["tool"] for entry in site.ledger()] == ["update_customer"]


def test_approve_and_undo_on_a_phone(site: Site, windows: Windows, window: None) -> None:
    run_id = site.parked()
    page = opened(site, windows.phone(), run_id)
    see_all(page)
    page.locator("[data-approve]").tap()
    page.locator("#toasts [data-undo-toast] button").tap()
    expect(page.locator("[data-approve]")).to_be_visible()
    assert statuses(site, run_id) == {"pending"}
    box = page.locator("[data-approve]").bounding_box()
    assert box
    assert box["height"] >= 44
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_undo_without_scripts(site: Site, windows: Windows, window: None) -> None:
    run_id = site.parked()
    page = opened(site, windows.open(java_script_enabled=False), run_id)
    page.locator("[data-approve]").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("[data-approve]")).to_be_visible()
    assert statuses(site, run_id) == {"pending"}


def test_a_dry_run_is_carried_out_from_its_report(site: Site, windows: Windows) -> None:
    run_id = site.launch(mode="dry_run")
    site.wait(run_id, "dry_run_ready")
    page = windows.open()
    page.goto(f"{site.url}/runs/{run_id}/report/")
    expect(page.locator("[data-execute]")).to_contain_text("Execute 5 actions")
    for _ in range(2):
        page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("[data-execute]")).to_contain_text("Execute 4 actions")
    page.keyboard.press("Shift+E")
    expect(page.get_by_text("sent to the inbox")).to_be_visible()
    site.wait(run_id, "waiting")
