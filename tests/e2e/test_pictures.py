"""The README's pictures, of a site that has been used for a week. Kept only with --save-pictures."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.e2e.conftest import Windows
from tests.e2e.past import Waiting
from tests.site import Site

Save = Callable[[Page, str], None]


def test_the_pictures(past: Site, waiting: Waiting, windows: Windows, save_picture: Save) -> None:
    page = windows.open()
    batch = f"/approvals/{past.batch(waiting.refunds)['id']}/"
    for name, path, sight in (
        ("launch", "/", ".agent-card"),
        ("inbox", batch, "#batch .action"),
        ("trace", a_step_of_a_finished_run(past), ".span--waiting"),
        ("traces", "/traces/?q=lantern", "#results a"),
        ("costs", "/costs/?range=7d", ".cost-table"),
        ("agent", "/agents/refund-desk/", ".prompt"),
    ):
        page.goto(past.url + path)
        expect(page.locator(sight).first).to_be_visible()
        save_picture(page, name)
    phone = windows.phone()
    phone.goto(past.url + batch)
    expect(phone.locator("#batch .action").first).to_be_visible()
    save_picture(phone, "inbox-phone")
    a_run_at_work(past, page, save_picture)


def a_step_of_a_finished_run(site: Site) -> str:
    runs = site.api("/runs?status=completed&agent=refund-desk&limit=200")["items"]
    run_id = next(run["id"] for run in runs if run["totals"]["wait_ms"])
    seq = next(step["seq"] for step in site.steps(run_id) if step["tool"] == "shop.get_order")
    return f"/traces/{run_id}/steps/{seq}/"


def a_run_at_work(site: Site, page: Page, save_picture: Save) -> None:
    site.start_over()
    site.model.pace = 45
    run_id = site.launch()
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{site.url}/runs/{run_id}/")
    expect(page.locator("#step-22")).to_be_visible()
    site.model.pace = 6
    expect(page.locator(".step-stream-text")).to_contain_text(re.compile(r"(\S+ ){12}"))
    save_picture(page, "run")
    page.emulate_media(color_scheme="dark")
    save_picture(page, "run-dark")
    site.model.pace = 0
