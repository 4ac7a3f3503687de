"""The inbox in which nothing waits: the other accessibility tests share a site where much does."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.e2e.conftest import DESK, Windows
from tests.e2e.test_accessibility import look_at
from tests.site import Site


def test_an_inbox_in_which_nothing_waits(site: Site, windows: Windows) -> None:
    page = windows.open(viewport=DESK, reduced_motion="reduce")

    assert not (found := look_at(page, f"{site.url}/approvals/")), "\n".join(found)
    expect(page.get_by_text("Nothing waits for you")).to_be_visible()
