"""One installation and one browser for all tests of a process; each test gets windows of its own, signed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.e2e.past import Waiting, leave_waiting, make_past
from tests.site import Site, running_site
from tests.up import ROOT

DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
WINDOW = {"viewport": DESK, "locale": "en-GB", "timezone_id": "Europe/Lisbon", "color_scheme": "light"}
PATIENCE_MS = 30_000  # generous: test machines are busy, and the duration is not what is tested
PICTURES = ROOT / "docs" / "pictures"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e/" in item.nodeid:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(240))


expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """Nothing waits, nothing is refunded, and the model answers at once."""
    running.start_over()
    yield running
    running.up.say_all()  # for the report of a test that fails
    print(running.unfinished())


@pytest.fixture(scope="session")
def session_state(running: Site, browser: Browser) -> Any:
    """What makes a window of the browser signed in as admin."""
    context = browser.new_context()
    try:
        sign_in(context.new_page(), running.sign_in_link())
    finally:
        running.up.say_all()
    state = context.storage_state()
    context.close()
    return state


def sign_in(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_role("button", name="Sign in as").click()
    page.wait_for_url(lambda url: "/accounts/link/" not in url)


class Windows:
    """Opens windows and listens to what they complain of: errors, broken policy, answers of 400 and above."""

    def __init__(self, browser: Browser, state: Any) -> None:
        self._browser = browser
        self._state = state
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        self.expected: list[str] = []

    def open(self, **options: Any) -> Page:
        context = self._browser.new_context(**{**WINDOW, "storage_state": self._state, **options})
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        self.listen(page)
        return page

    def phone(self, **options: Any) -> Page:
        return self.open(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2, **options)

    def listen(self, page: Page) -> None:
        page.on("console", lambda m: self._note(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self._note(f"script: {error}"))
        page.on("response", lambda r: self._note(f"{r.status} {r.request.method} {r.url}") if r.status >= 400 else None)

    def expect_complaint(self, pattern: str) -> None:
        self.expected.append(pattern)

    def _note(self, text: str) -> None:
        self.complaints.append(text)

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        left = [text for text in self.complaints if not any(re.search(pattern, text) for pattern in self.expected)]
        assert left == []


@pytest.fixture
def windows(browser: Browser, session_state: Any) -> Iterator[Windows]:
    windows = Windows(browser, session_state)
    yield windows
    windows.close()


@pytest.fixture
def guest_windows(browser: Browser) -> Iterator[Windows]:
    """Windows in which nobody is signed in, for tests with an installation of their own."""
    windows = Windows(browser, None)
    yield windows
    windows.close()


@pytest.fixture
def open_run(running: Site, windows: Windows) -> Callable[..., Page]:
    def open_page(run_id: str, **options: Any) -> Page:
        page = windows.open(**options)
        page.goto(f"{running.url}/runs/{run_id}/")
        return page

    return open_page


@pytest.fixture(scope="session")
def save_picture(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Page, str], None]:
    """Into docs/pictures when asked for, else to a folder that goes away: a picture that can't be taken still fails."""
    folder: Path = PICTURES if request.config.getoption("--save-pictures") else tmp_path_factory.mktemp("pictures")
    folder.mkdir(exist_ok=True)

    def save(page: Page, name: str) -> None:
        page.evaluate("document.fonts.ready")
        page.screenshot(path=folder / f"{name}.png", animations="disabled", caret="hide")

    return save


@pytest.fixture(scope="session")
def past(running: Site) -> Site:
    """Half a minute's work: the files that want it are named in `tests/groups.py`, so that one process makes it."""
    running.start_over()
    make_past(running)
    return running


@pytest.fixture(scope="module")
def waiting(past: Site) -> Waiting:
    """A site with a week of work behind it, and with three batches that wait; the tests of a module only look at it."""
    return leave_waiting(past)
