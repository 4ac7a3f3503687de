"""The frame's scripts in a real browser under the real policy. No server: pages and files are answered from here."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import RequestFactory
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from agentsite import context
from tests.frame.urls import gallery
from tests.up import eventually

pytestmark = pytest.mark.e2e

ORIGIN = "http://127.0.0.1:9"
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; img-src 'self' data:"
LIVE = f"""
import {{ connect }} from "{settings.STATIC_URL}js/ws.js";
window.live = connect({{ url: (after) => `/ws/runs/1/?after=${{after}}`, after: 3 }});
"""


class Sockets:
    """The server's ends of the page's sockets, oldest first."""

    def __init__(self) -> None:
        self.opened: list[WebSocketRoute] = []

    def accept(self, socket: WebSocketRoute) -> None:
        self.opened.append(socket)

    def send(self, html: str) -> None:
        self.opened[-1].send(html)


def answer(route: Route) -> None:
    path = urlsplit(route.request.url).path
    file = Path(settings.BASE_DIR, "static", path.removeprefix(settings.STATIC_URL))
    if path == "/live.js":
        route.fulfill(body=LIVE, content_type="text/javascript")
    elif path.startswith(settings.STATIC_URL) and file.is_file():
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        route.fulfill(body=file.read_bytes(), content_type=kind)
    elif route.request.method == "POST":
        route.fulfill(status=204)
    else:
        headers = {"Content-Security-Policy": POLICY, "Content-Type": "text/html; charset=utf-8"}
        route.fulfill(body=gallery(RequestFactory().get(path)).content, headers=headers)


@pytest.fixture
def sockets() -> Sockets:
    return Sockets()


@pytest.fixture
def page(browser: Browser, sockets: Sockets, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setattr(context, "COUNTERS", {"approvals": lambda access: 3})
    run = {"href": "/runs/7/", "title": "Late deliveries", "ref": "R-1840", "status": "stopped"}
    monkeypatch.setattr(context, "RECENT_RUNS", [lambda access: [run]])
    page = browser.new_page(viewport={"width": 1440, "height": 900}, timezone_id="Europe/Paris", locale="en-GB")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.route("**/*", answer)
    page.route_web_socket(re.compile("/ws/"), sockets.accept)
    page.goto(f"{ORIGIN}/approvals/")
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def live(page: Page, sockets: Sockets) -> Page:
    page.add_script_tag(url="/live.js", type="module")
    expect(page.locator(".sidebar [data-connection]")).to_have_attribute("data-state", "live")
    return page


def test_a_socket_that_was_opened_early_is_taken_over_with_what_it_brought(page: Page, sockets: Sockets) -> None:
    page.evaluate(
        """([source, socket]) => {
            document.body.insertAdjacentHTML("beforeend", '<ol id="log"></ol>');
            const script = document.createElement("script");
            Object.assign(script, { src: source });
            Object.assign(script.dataset, { socket });
            document.head.append(script);
        }""",
        [f"{settings.STATIC_URL}js/early.js", "/ws/runs/1/?after=3"],
    )
    eventually(lambda: page.evaluate("'earlySocket' in window"))
    sockets.send('<li id="s4" data-append="#log" data-seq="4">early</li>')
    page.evaluate("new Promise((done) => setTimeout(done))")

    page.add_script_tag(url="/live.js", type="module")

    expect(page.locator("#s4")).to_have_text("early")
    sockets.send('<li id="s5" data-append="#log" data-seq="5">late</li>')
    expect(page.locator("#s5")).to_have_text("late")
    assert len(sockets.opened) == 1


@pytest.mark.parametrize("width", [320, 390, 768, 1100, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_window(page: Page, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_palette_filters_and_goes(page: Page) -> None:
    page.keyboard.press("Control+k")
    page.keyboard.type("late")
    items = page.locator(".palette-item:visible")
    expect(items).to_have_count(2)
    expect(items.first).to_have_attribute("aria-selected", "true")
    expect(items.nth(1)).to_have_text(re.compile("Search traces for “late”"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/7/")


def test_escape_closes_and_gives_the_focus_back(page: Page) -> None:
    page.locator(".jump").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#palette")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).to_be_hidden()
    expect(page.locator(".jump")).to_be_focused()


def test_single_keys_go_places_but_not_while_typing(page: Page) -> None:
    page.keyboard.press("?")
    expect(page.locator("#shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    steer = page.get_by_label("Steer this run")
    steer.fill("")
    steer.press_sequentially("gi?n")
    expect(steer).to_have_value("gi?n")
    expect(page.locator("#shortcuts")).to_be_hidden()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/traces/")


def test_the_theme_changes_at_once_and_is_posted(page: Page) -> None:
    with page.expect_request(lambda request: request.method == "POST") as sent:
        page.locator(".sidebar [data-theme-toggle] button").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert 'name="theme"' in (sent.value.post_data or "")


def test_times_are_local(page: Page) -> None:
    expect(page.locator(".foot-clock").first).to_contain_text(re.compile(r"\d\d:\d\d \S+"))
    shown = page.locator(".elsewhere time")
    expect(shown).not_to_contain_text("UTC")


def test_a_dialog_confirms(page: Page) -> None:
    page.locator("[data-open='cancel-run']").click()
    expect(page.locator("#cancel-run")).to_be_visible()
    page.get_by_role("button", name="Keep running").click()
    expect(page.locator("#cancel-run")).to_be_hidden()


def test_a_step_comes_once_and_changes_in_place(live: Page, sockets: Sockets) -> None:
    step = '<li class="step" id="step-35" data-append="#timeline ol" data-seq="35">{}</li>'
    sockets.send(step.format("first"))
    sockets.send(step.format("first"))
    sockets.send(step.format("second"))
    expect(live.locator("#step-35")).to_have_count(1)
    expect(live.locator("#timeline ol > li").last).to_have_text("second")
    assert live.evaluate("window.live.seq") == 35


def test_streamed_text_is_text_and_safe_to_repeat(live: Page, sockets: Sockets) -> None:
    sockets.send('<li id="now" data-append="#timeline ol"><p id="now-text"></p></li>')
    piece = '<span data-text-append="#now-text" data-offset="{}">{}</span>'
    sockets.send(piece.format(0, "a &lt;b&gt; 😀"))
    sockets.send(piece.format(0, "a &lt;b&gt; 😀"))
    sockets.send(piece.format(7, " end"))
    sockets.send(piece.format(50, "lost"))
    expect(live.locator("#now-text")).to_have_text("a <b> 😀 end")
    assert live.locator("#now-text b").count() == 0


def test_what_someone_types_is_not_replaced(live: Page, sockets: Sockets) -> None:
    sockets.send('<div id="box" data-append="#timeline"><input id="field" value=""></div>')
    live.locator("#field").fill("half a thought")
    sockets.send('<div id="box"><input id="field" value=""><b>new</b></div>')
    sockets.send('<p id="after" data-append="#timeline" data-seq="36">after</p>')
    expect(live.locator("#after")).to_be_visible()
    expect(live.locator("#field")).to_have_value("half a thought")
    live.locator("#field").fill("")
    live.locator("#field").blur()
    expect(live.locator("#box b")).to_have_text("new")


def test_follow_stops_when_the_reader_scrolls_up_and_counts_what_came(live: Page, sockets: Sockets) -> None:
    live.evaluate(
        """async (modules) => {
        document.querySelector("#timeline ol").outerHTML = '<ol id="log" class="payload"></ol>';
        document.querySelector("#timeline").insertAdjacentHTML("beforeend", '<button id="pill" hidden></button>');
        const log = document.querySelector("#log");
        log.style.setProperty("max-height", "200px");
        log.style.setProperty("overflow-y", "auto");
        const { follow } = await import(`${modules}live.js`);
        follow(document.querySelector("#log"), { pill: document.querySelector("#pill") });
    }""",
        f"{settings.STATIC_URL}js/",
    )
    step = '<li id="s{0}" data-append="#log"><pre>{1}</pre></li>'
    for n in range(10):
        sockets.send(step.format(n, "\n" * 8))
    expect(live.locator("#s9")).to_be_attached()
    eventually(lambda: live.evaluate("log.scrollTop + log.clientHeight >= log.scrollHeight - 1 && log.scrollTop > 200"))
    live.evaluate("log.scrollTop = 0")
    live.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
    sockets.send(step.format(10, "new"))
    sockets.send(step.format(0, "changed"))
    sockets.send(step.format(11, "new"))
    expect(live.locator("#pill")).to_have_text("2 new steps")
    assert live.evaluate("log.scrollTop") == 0
    live.locator("#pill").click()
    expect(live.locator("#pill")).to_be_hidden()
    eventually(lambda: live.evaluate("log.scrollTop + log.clientHeight >= log.scrollHeight - 1"))


def test_after_a_break_it_asks_for_what_came_since(live: Page, sockets: Sockets) -> None:
    sockets.send('<i id="x" data-append="#timeline" data-seq="41"></i>')
    eventually(lambda: live.evaluate("window.live.seq === 41"))
    sockets.opened[-1].close(code=1012)
    connection = live.locator(".sidebar [data-connection]")
    expect(connection).to_have_attribute("data-state", "reconnecting")
    expect(connection).to_contain_text("try 1")
    expect(connection).to_have_attribute("data-state", "live")
    assert [urlsplit(socket.url).query for socket in sockets.opened] == ["after=3", "after=41"]
    expect(live.locator("#connection-bar")).to_be_hidden()


def test_a_session_that_ended_is_said_and_not_retried(live: Page, sockets: Sockets) -> None:
    sockets.opened[-1].close(code=4401)
    bar = live.locator("#connection-bar")
    expect(bar).to_contain_text("Your session has ended")
    expect(bar.get_by_role("link", name="Sign in again")).to_have_attribute("href", re.compile("/accounts/login/"))
    live.evaluate("window.dispatchEvent(new Event('online'))")
    assert len(sockets.opened) == 1
