from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.template import Context, Template
from hypothesis import given
from hypothesis import strategies as st

from agentsite.templatetags import agentsite as tags
from agentsite.templatetags import vocabulary


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "unpriced"),
        (Decimal(0), "$0.00"),
        (0, "$0.00"),
        (Decimal("0.009"), "<$0.01"),
        (Decimal("0.00999999"), "<$0.01"),
        (Decimal("0.01"), "$0.01"),
        (Decimal("1.205"), "$1.21"),
        (1.205, "$1.21"),
        (1116, "$1,116.00"),
        (Decimal("-262.4"), "\N{MINUS SIGN}$262.40"),
        (Decimal("-0.001"), "\N{MINUS SIGN}<$0.01"),
    ],
)
def test_money(amount: Any, shown: str) -> None:
    assert tags.money(amount) == shown


def test_money_where_no_cost_can_occur() -> None:
    assert tags.money(None, "–") == "–"
    assert tags.money(Decimal(0), "–") == "$0.00"


def test_money3() -> None:
    assert tags.money3(Decimal("0.0056")) == "$0.006"
    assert tags.money3(Decimal("0.0004")) == "<$0.001"
    assert tags.money3(None) == "unpriced"


@pytest.mark.parametrize(
    ("count", "short", "full"),
    [
        (None, "–", "–"),
        (0, "0", "0"),
        (999, "999", "999"),
        (1_000, "1k", "1,000"),
        (1_180, "1.2k", "1,180"),
        (9_960, "10k", "9,960"),
        (20_400, "20k", "20,400"),
        (412_345, "412k", "412,345"),
        (999_600, "1M", "999,600"),
        (1_250_000, "1.2M", "1,250,000"),
    ],
)
def test_tokens(count: int | None, short: str, full: str) -> None:
    assert tags.tokens_short(count) == short
    assert tags.tokens(count) == full


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (None, "–"),
        (0, "0.0s"),
        (12, "<0.1s"),
        (340, "0.3s"),
        (4_100, "4.1s"),
        (59_949, "59.9s"),
        (59_960, "1m 00s"),
        (588_000, "9m 48s"),
        (3_599_600, "1h 00m"),
        (11_520_000, "3h 12m"),
        (86_400_000 * 2 + 4 * 3_600_000, "2d 4h"),
    ],
)
def test_duration(milliseconds: float | None, shown: str) -> None:
    assert tags.duration_ms(milliseconds) == shown


def test_percent_and_change() -> None:
    assert tags.percent(0.86) == "86%"
    assert tags.percent(Decimal("0.123"), 1) == "12.3%"
    assert tags.percent(None) == "–"
    assert tags.change(0.22) == "+22%"
    assert tags.change(-0.06) == "\N{MINUS SIGN}6%"
    assert tags.change(0.001) == "0%"
    assert tags.change(-0.001) == "0%"


def test_initials() -> None:
    assert [tags.initials(name) for name in ("Dana Okafor", "admin", "Ana de Souza", "")] == ["DO", "AD", "AS", ""]


def test_clock() -> None:
    assert [tags.clock(s) for s in (0, 252, 1638, 3600)] == ["00:00", "04:12", "27:18", "1h 00m"]


# --- visible ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hidden",
    [
        "\u202e",
        "\u2066",
        "\u200b",
        "\u200d",
        "\ufeff",
        "\u00ad",
        "\x1b",
        "\x07",
        "\x85",
        "\u2028",
        "\u3164",
        "\U000e0041",
        "\r",
    ],
)
def test_what_can_not_be_seen_is_named(hidden: str) -> None:
    shown = tags.visible(f"pay{hidden}ment")
    assert hidden not in shown
    assert f"U+{ord(hidden):04X}" in shown


@pytest.mark.parametrize("plain", ["Grüße, 東京, مرحبا", "two\nlines\tand a tab", "one\r\ntwo", "❤\ufe0f"])
def test_ordinary_text_stays(plain: str) -> None:
    assert tags.visible(plain) == plain.replace("\r\n", "\n")


@given(st.text())
def test_visible_never_lets_markup_or_invisible_characters_through(text: str) -> None:
    shown = tags.visible(text)
    rest = re.sub(r'<span class="codepoint" title="[A-Z0-9 ()\-]+">U\+[0-9A-F]{4,6}</span>', "", shown)
    assert "<" not in rest
    assert ">" not in rest
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\x00-\x08\x1b]", shown)


def test_visible_in_a_template_is_not_escaped_twice() -> None:
    shown = Template("{{ text|visible }}").render(Context({"text": "a < b\u202e"}))
    assert shown.startswith("a &lt; b<span")


# --- badges ----------------------------------------------------------------------------------------------------------


def test_every_status_of_a_run_has_its_words() -> None:
    for status in [
        "queued",
        "running",
        "waiting",
        "paused",
        "completed",
        "stopped",
        "failed",
        "cancelled",
        "dry_run_ready",
    ]:
        assert status in vocabulary.STATUSES
    assert "Stopped by guardrail" in tags.status_pill("stopped")
    assert "Needs approval" in tags.status_text("waiting")
    assert "Dry run ready" in tags.status_text("dry_run_ready")


def test_every_kind_of_step_has_a_tile() -> None:
    for kind in ["plan", "model", "tool", "evaluate", "approval", "guardrail", "message", "delegate", "result"]:
        assert kind in vocabulary.KINDS
    assert "tile--bad" in tags.kind_tile("tool", "timeout")
    assert "tile--tool" in tags.kind_tile("tool", "ok")


def test_a_label_is_escaped() -> None:
    assert "<img" not in tags.status_text("running", "<img>")
    assert "<img" not in tags.icon("x", "<img>")


def test_risk_says_its_word_and_lights_as_many_bars() -> None:
    for level, bars in (("low", 1), ("medium", 2), ("high", 3), ("critical", 4)):
        assert tags.risk_badge(level).count('class="on"') == bars
        assert level.capitalize() in tags.risk_badge(level)
    assert "Forbidden" in tags.risk_badge("forbidden")


def test_scores() -> None:
    assert "score--ok" in tags.score_chip(0.8)
    assert "score--warn" in tags.score_chip(Decimal("0.71"))
    assert "score--bad" in tags.score_chip(0.21)
    assert tags.score_chip(None) == ""


def test_confidence_below_its_floor_is_marked() -> None:
    assert "confidence--low" in tags.confidence(0.86, 0.9)
    assert "confidence--low" not in tags.confidence(0.96, 0.9)
    assert "not given" in tags.confidence(None)


def test_meter_warns_from_80_percent() -> None:
    assert [tags.meter("Cost", cost, 1, "money")["tone"] for cost in (0.79, 0.8, 1)] == ["", "warn", "bad"]
    assert tags.meter("Steps", 61, 60)["width"] == "100.0"
    assert tags.meter("Steps", 61, None)["limit"] is None


@pytest.mark.parametrize(("seconds", "level"), [(1801, "calm"), (1700, "soon"), (200, "urgent"), (-5, "expired")])
def test_countdown_levels(seconds: int, level: str) -> None:
    deadline = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    assert tags.countdown(deadline)["level"] == level


def test_local_time_has_an_absolute_fallback() -> None:
    moment = dt.datetime(2026, 3, 12, 15, 21, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    shown = tags.local_time(moment)
    assert 'datetime="2026-03-12T14:21:00+00:00"' in shown
    assert "12 Mar 14:21 UTC" in shown
    assert "14:21 UTC" in tags.local_time(moment, "time")
    assert tags.local_time(None) == "–"


# --- icons -----------------------------------------------------------------------------------------------------------


def symbols() -> set[str]:
    return set(re.findall(r'<symbol id="([^"]+)"', (settings.BASE_DIR / "static/icons.svg").read_text()))


def test_every_icon_named_in_templates_and_vocabulary_is_in_the_sprite() -> None:
    templates = "".join(path.read_text() for path in sorted(Path(settings.BASE_DIR, "templates").rglob("*.html")))
    used = set(re.findall(r'{%-?\s*icon\s+"([^"]+)"', templates))
    used |= {state.icon for state in vocabulary.STATUSES.values()} | {kind.icon for kind in vocabulary.KINDS.values()}
    assert used
    assert used <= symbols()


def test_icons_are_silent_unless_labelled() -> None:
    assert 'aria-hidden="true"' in tags.icon("mail")
    assert 'aria-label="Email"' in tags.icon("mail", "Email")
    assert f"{settings.STATIC_URL}icons.svg#mail" in tags.icon("mail")
