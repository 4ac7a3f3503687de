"""Two people in windows of their own: each sees that the other looks at a batch, who was quicker, and who is asked."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import Windows, sign_in
from tests.e2e.past import change
from tests.e2e.steps_on_page import is_live, see_all
from tests.site import Site

NOTE = "You know this supplier."


@pytest.fixture(scope="module")
def tomas(running: Site, browser: Browser) -> Iterator[Any]:
    """What makes a window Tomas's, who may approve during these tests; afterwards the admin is alone again."""
    running.command("create_user", "tomas", "--role", "approver")
    change(running, "UPDATE accounts_user SET first_name = 'Tomas' WHERE username = 'tomas'")
    with closing(sqlite3.connect(running.up.data_dir / "agentsite.sqlite3", timeout=20)) as db:
        (separation,) = db.execute("SELECT separation FROM accounts_team").fetchone()
    change(running, "UPDATE accounts_team SET separation = 'off'")
    context = browser.new_context()
    sign_in(context.new_page(), running.sign_in_link("tomas"))
    yield context.storage_state()
    context.close()
    of_tomas = "user_id = (SELECT id FROM accounts_user WHERE username = 'tomas')"
    change(running, f"UPDATE accounts_membership SET role = 'viewer' WHERE {of_tomas}")
    change(running, "UPDATE accounts_team SET separation = ?", separation)


@pytest.fixture
def batch(site: Site) -> str:
    """The address of a batch with one e-mail in it."""
    run_id = site.parked("supplier-research", "interactive")
    return f"{site.url}/approvals/{site.batch(run_id)['id']}/"


@pytest.fixture
def theirs(windows: Windows, tomas: Any, batch: str) -> Page:
    return opened(windows, batch, storage_state=tomas)


def opened(windows: Windows, batch: str, **options: Any) -> Page:
    page = windows.open(**options)
    page.goto(batch)
    is_live(page)
    return page


def approve(page: Page) -> None:
    see_all(page)
    page.locator("[data-approve]").click()


def test_one_sees_that_the_other_reviews_the_batch_until_they_leave(windows: Windows, batch: str, theirs: Page) -> None:
    mine = opened(windows, batch)
    here = mine.locator("#batch .batch-present")
    expect(here).to_have_text("Tomas is reviewing this")
    expect(theirs.locator("#batch .batch-present")).to_contain_text("is reviewing this")
    theirs.goto("about:blank")
    expect(here).to_be_hidden()


def test_who_was_slower_sees_who_decided_and_when(site: Site, windows: Windows, batch: str, theirs: Page) -> None:
    live = opened(windows, batch)
    without_scripts = windows.open(java_script_enabled=False)
    without_scripts.goto(batch)
    approve(theirs)

    notice = live.locator("#batch .elsewhere")
    expect(notice).to_have_text(re.compile(r"Tomas approved this batch at \d\d:\d\d"))
    expect(live.locator("[data-approve]")).to_be_hidden()
    without_scripts.locator("[data-approve]").click()
    expect(without_scripts.locator("#batch")).to_contain_text("Tomas approved this already")
    expect(without_scripts.locator("#batch time").first).to_be_visible()


def test_handing_over_moves_the_batch_to_the_other_s_for_me(
    site: Site, windows: Windows, batch: str, theirs: Page
) -> None:
    mine = opened(windows, batch)
    mine.keyboard.press("h")
    form = mine.locator("#hand-over")
    form.get_by_label("Ask").select_option("tomas")
    form.get_by_label("Note").fill(NOTE)
    form.get_by_role("button", name="Hand over").click()

    expect(mine.get_by_text("Tomas is asked now.")).to_be_visible()
    expect(theirs.locator("#batch .batch-asked")).to_contain_text(NOTE)
    for page, rows in ((mine, 0), (theirs, 1)):
        page.goto(f"{site.url}/approvals/?show=mine")
        expect(page.locator(".batch-row")).to_have_count(rows)
