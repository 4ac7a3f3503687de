"""Every page in both themes and on a phone: axe finds nothing serious, nothing is too wide, nothing complains."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.e2e.axe import problems
from tests.e2e.conftest import DESK, PHONE, Windows
from tests.e2e.past import Waiting
from tests.site import Site

WIDTHS = (320, 390, 768, 1440)
WIDER = """() => [...document.querySelectorAll("body *")]
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 1 && element.checkVisibility())
  .filter((element) => !element.parentElement.closest(".table-scroll, .payload, pre, svg"))
  .slice(-3).map((element) => element.outerHTML.slice(0, 160))"""

PAGES = {
    "launch": "/",
    "runs": "/runs/",
    "run that waits": "/runs/{refunds}/",
    "run that ended": "/runs/{ended}/",
    "run that was stopped": "/runs/{stopped}/",
    "step": "/runs/{ended}/steps/3/",
    "report of a dry run": "/runs/{dry}/report/",
    "inbox": "/approvals/",
    "inbox, nothing like that": "/approvals/?show=two_person",
    "batch": "/approvals/{batch}/",
    "batch of deletions": "/approvals/{deletions}/",
    "across runs": "/approvals/actions/",
    "across runs, nothing": "/approvals/actions/?q=zeppelin",
    "whole payload": "/approvals/{batch}/actions/{action}/whole",
    "edit without scripts": "/approvals/{batch}/actions/{action}/",
    "batch that was decided": "/approvals/{decided}/",
    "allow more like it": "/approvals/actions/{approved}/allow/",
    "decided": "/approvals/?show=decided",
    "evidence": "/approvals/actions/{action}/",
    "audit log": "/approvals/log/",
    "measures": "/approvals/measures/",
    "notifications": "/approvals/notifications/",
    "search": "/traces/",
    "results": "/traces/?q=lantern",
    "broken query": "/traces/?q=cost%3A",
    "nothing found": "/traces/?q=zeppelin",
    "trace": "/traces/{ended}/",
    "trace step": "/traces/{ended}/steps/3/",
    "trace notes": "/traces/{ended}/?notes=open",
    "two traces": "/traces/compare/?run={ended}&run={stopped}",
    "why these": "/traces/why/?q=status%3Astopped",
    "cost alerts": "/costs/alerts/",
    "erasure": "/accounts/erasure/",
    "costs": "/costs/",
    "costs of a day": "/costs/?by=tool&range=7d",
    "agents": "/agents/",
    "agent": "/agents/refund-desk/",
    "standing permissions": "/approvals/grants/",
    "later look": "/approvals/later/",
    "settings": "/accounts/settings/",
}
GUEST_PAGES = {"sign in": "/accounts/login/", "sign in by link": "{link}"}


@pytest.fixture(scope="module")
def places(past: Site, waiting: Waiting) -> dict[str, str]:
    """The ids that the paths above name."""
    runs = past.api("/runs?limit=200")["items"]
    batches = [past.batch(run["id"]) for run in runs if run["status"] == "completed" and run["totals"]["wait_ms"]]
    decided = next(batch for batch in batches if any(action["supersedes"] for action in batch["actions"]))
    return {
        "refunds": waiting.refunds,
        "ended": decided["run"],
        "stopped": next(run["id"] for run in runs if run["status"] == "stopped"),
        "dry": next(run["id"] for run in runs if run["status"] == "dry_run_ready"),
        "batch": past.batch(waiting.refunds)["id"],
        "decided": decided["id"],
        "approved": decided["actions"][0]["id"],
        "action": past.batch(waiting.refunds)["actions"][0]["id"],
        "deletions": past.batch(waiting.cleanup)["id"],
    }


def too_wide(page: Page) -> list[str]:
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if over > 0:
            found.append(f"{over} px too wide at {width}: {page.evaluate(WIDER)}")
    return found


def look_at(page: Page, address: str) -> list[str]:
    found: list[str] = []
    page.goto(address)
    found += problems(page, "light")
    page.emulate_media(color_scheme="dark")
    found += problems(page, "dark")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.goto(address)
    found += problems(page, "on a phone, dark")
    page.emulate_media(color_scheme="light")
    found += problems(page, "on a phone")
    found += too_wide(page)
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page(past: Site, windows: Windows, places: dict[str, str], name: str) -> None:
    page = windows.open(viewport=DESK, reduced_motion="reduce")
    windows.expect_complaint(r"422 GET .*/traces/|status of 422" if name == "broken query" else "^$")
    assert not (found := look_at(page, past.url + PAGES[name].format(**places))), "\n".join(found)


@pytest.mark.parametrize("name", GUEST_PAGES)
def test_a_page_for_guests(running: Site, guest_windows: Windows, name: str) -> None:
    path = GUEST_PAGES[name].format(link=running.sign_in_link().removeprefix(running.url))
    assert not (found := look_at(guest_windows.open(reduced_motion="reduce"), running.url + path)), "\n".join(found)


def test_nothing_there(running: Site, windows: Windows) -> None:
    page = windows.open(reduced_motion="reduce")
    windows.expect_complaint("404")
    assert look_at(page, f"{running.url}/runs/01920000-0000-7000-8000-000000000000/") == []


def test_the_dialogs(past: Site, windows: Windows, places: dict[str, str]) -> None:
    page = windows.open(reduced_motion="reduce")
    found = []
    for path, key in (("/runs/{refunds}/", "?"), ("/runs/{refunds}/", "Control+k"), ("/approvals/{batch}/", "r")):
        page.goto(past.url + path.format(**places))
        page.keyboard.press(key)
        page.locator("dialog[open]").wait_for()
        found += problems(page, f"{path} {key}")
    assert not found, "\n".join(found)


def test_an_opened_step_and_an_edited_action(past: Site, windows: Windows, places: dict[str, str]) -> None:
    page = windows.open(reduced_motion="reduce")
    page.goto(f"{past.url}/runs/{places['ended']}/")
    page.locator("#open-3 summary").click()
    page.locator("#more-3 pre, #more-3 .quote").first.wait_for()
    found = problems(page, "a step")
    page.goto(f"{past.url}/approvals/{places['batch']}/")
    page.locator("[data-edit]").first.click()
    page.locator("[data-editing]").wait_for()
    found += [*problems(page, "editing"), *too_wide(page)]
    assert not found, "\n".join(found)


def test_the_api_pages_scripts_are_let_in(running: Site, windows: Windows) -> None:
    page = windows.open()
    page.goto(f"{running.url}/api/v1/docs")
    page.locator(".opblock").first.wait_for()
