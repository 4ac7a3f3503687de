from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.template.loader import render_to_string
from django.test import RequestFactory

from agentsite import context
from tests.frame.urls import gallery_context

STATIC = Path(settings.BASE_DIR, "static")
TEMPLATES = sorted(Path(settings.BASE_DIR, "templates").rglob("*.html"))


def signed_in() -> Any:
    return SimpleNamespace(user=SimpleNamespace(label="Dana Okafor"), team=SimpleNamespace(name="Harbor & Pine"))


def render(template: str, path: str = "/approvals/", cookies: dict[str, str] | None = None, access: Any = None) -> str:
    request = RequestFactory().get(path)
    request.COOKIES.update(cookies or {})
    request.access = access  # type: ignore[attr-defined]
    return render_to_string(template, gallery_context(), request=request)


def test_the_frame_shows_where_one_is_and_who(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "COUNTERS", {"approvals": lambda access: 3})
    monkeypatch.setattr(context, "RECENT_RUNS", [])
    html = render("components/gallery.html", access=signed_in())
    assert "Harbor &amp; Pine" in html
    assert re.search(r'href="/approvals/"[^>]*aria-current="page"', html)
    assert re.search(r'id="nav-count-approvals"><span aria-hidden="true">3<', html)
    assert html.count("<h1") == 1
    assert "Evals" not in html


def test_signed_out_nobody_is_asked_for_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(access: Any) -> int:
        raise AssertionError("counted for nobody")

    monkeypatch.setattr(context, "COUNTERS", {"approvals": refuse})
    assert "data-theme-toggle" not in render("components/gallery.html")


def test_a_fragment_pays_nothing_for_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "COUNTERS", {"approvals": lambda access: 1 / 0})
    assert render("components/empty.html", access=signed_in())


@pytest.mark.parametrize(("cookie", "expected"), [("dark", 'data-theme="dark"'), ("light", 'data-theme="light"')])
def test_theme_comes_from_the_cookie(cookie: str, expected: str) -> None:
    assert f'<html lang="en" {expected}>' in render("components/gallery.html", cookies={"theme": cookie})


def test_an_unknown_theme_is_ignored() -> None:
    assert '<html lang="en">' in render("components/gallery.html", cookies={"theme": '"><script>'})


@pytest.mark.parametrize("simulated", [True, False])
def test_the_simulated_model_is_named_on_every_page(settings: Any, simulated: bool) -> None:
    settings.SIMULATED = simulated
    assert ("bar--simulated" in render("components/gallery.html")) is simulated


@pytest.mark.parametrize("template", ["404.html", "403.html", "400.html", "403_csrf.html"])
def test_error_pages_have_one_heading(template: str) -> None:
    assert render(template).count("<h1") == 1


def test_the_500_page_needs_no_context() -> None:
    assert render_to_string("500.html").count("<h1") == 1


def test_nothing_inline() -> None:
    """The policy is default-src 'self': an inline script or style would be dead, an on… handler too."""
    for path in TEMPLATES:
        text = path.read_text()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|hx-on", text), path
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path


def test_every_static_file_named_in_the_head_exists() -> None:
    head = Path(settings.BASE_DIR, "templates/_frame/head.html").read_text()
    names = re.findall(r'{% static "([^"]+)" %}', head)
    assert names
    assert [name for name in names if finders.find(name) is None] == []


def test_colours_live_in_the_tokens_only() -> None:
    for sheet in sorted((STATIC / "css").glob("*.css")):
        if sheet.name == "tokens.css":
            continue
        colours = set(re.findall(r"#[0-9a-fA-F]{3,8}\b(?![^\n]*\{)", sheet.read_text())) - {"#fff", "#000"}
        assert colours == set(), sheet.name


def test_every_token_in_use_is_defined() -> None:
    defined = set(re.findall(r"(--[a-z0-9-]+):", (STATIC / "css/tokens.css").read_text()))
    for sheet in sorted((STATIC / "css").glob("*.css")):
        text = sheet.read_text()
        used = set(re.findall(r"var\((--[a-z0-9-]+)", text))
        assert used <= defined | set(re.findall(r"(--[a-z0-9-]+):", text)), sheet.name


def test_dark_defines_the_same_tokens_both_ways() -> None:
    text = (STATIC / "css/tokens.css").read_text()
    by_system = text[text.index("@media (prefers-color-scheme") : text.index('html[data-theme="light"]')]
    by_choice = text[text.index('html[data-theme="dark"]') : text.index("@media (max-width")]
    assert _values(by_system) == _values(by_choice)
    assert _values(by_system)


def _values(text: str) -> dict[str, str]:
    return dict(re.findall(r"(--[a-z0-9-]+): ([^;]+);", text))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(theme: str) -> None:
    text = (STATIC / "css/tokens.css").read_text()
    light = _values(text[: text.index("@media (prefers-color-scheme")])
    tokens = light if theme == "light" else light | _values(text[text.index('html[data-theme="dark"]') :])
    for ink in ("ink", "ink-2", "ink-3", "accent-ink", "ok-ink", "warn-ink", "high-ink", "bad-ink"):
        for ground in ("surface", "canvas", "sunken", "hover"):
            assert _contrast(tokens[f"--{ink}"], tokens[f"--{ground}"]) >= 4.5, (ink, ground)
    for tone in ("ok", "warn", "high", "bad", "accent", "tool", "eval", "sub"):
        assert _contrast(tokens[f"--{tone}-ink"], tokens[f"--{tone}-soft"]) >= 4.5, tone
        assert _contrast(tokens["--ink"], tokens[f"--{tone}-soft"]) >= 4.5, tone
    for control in ("control", "focus"):
        assert _contrast(tokens[f"--{control}"], tokens["--surface"]) >= 3, control
    for fill in ("accent", "accent-hover", "bad-fill", "bad-fill-hover"):
        assert _contrast("#ffffff", tokens[f"--{fill}"]) >= 4.5, fill


def _contrast(one: str, other: str) -> float:
    """WCAG's ratio of two #rrggbb colours."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
