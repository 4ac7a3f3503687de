"""How tests read and use the pages of a run and of a batch."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page, expect

ROWS = """() => [...document.querySelectorAll("#steps > .step[data-seq]")].map((row) => [
  row.id, row.className, row.dataset.filter, row.querySelector("h3")?.innerText ?? "",
  row.querySelector("summary").innerText,
  row.querySelector("summary svg use").getAttribute("href"),
])"""


def step_rows(page: Page) -> list[Any]:
    """What a person sees of each recorded step, in the order of the page."""
    rows: list[Any] = page.evaluate(ROWS)
    return rows


def is_live(page: Page) -> None:
    expect(page.locator("[data-connection]").first).to_have_attribute("data-state", "live")


def status_is(page: Page, status: str) -> None:
    expect(page.locator("#run-status")).to_have_attribute("data-status", status, timeout=60_000)


def card(page: Page, title: str) -> Locator:
    return page.locator("#batch .action").filter(has=page.get_by_role("heading", name=title))


def see_all(page: Page) -> None:
    """A person scrolls through the batch: what was not on screen can't be approved."""
    for mark in page.locator("#batch .action-title, #batch [data-end]").all():
        mark.scroll_into_view_if_needed()
    expect(page.locator("[data-approve] [data-label]")).not_to_contain_text("See the")
