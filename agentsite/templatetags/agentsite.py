"""Tags and filters every template may use: icons, badges, figures, times. A builtin library, so no `{% load %}`."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from agentsite.templatetags import vocabulary

register = template.Library()

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
CENT = Decimal("0.01")

# --- icons and badges ------------------------------------------------------------------------------------------------


@register.simple_tag
@lru_cache(maxsize=1_000)  # a page has hundreds of them, and few different ones
def icon(name: str, label: str = "", extra: str = "") -> SafeString:
    """One icon of the sprite. Decorative unless `label` is given; `extra` adds classes."""
    named = format_html('role="img" aria-label="{}"', label) if label else mark_safe('aria-hidden="true"')
    classes = f"icon {extra}".strip()
    return format_html('<svg class="{}" {}><use href="{}#{}"/></svg>', classes, named, static("icons.svg"), name)


@register.simple_tag
def risk_badge(level: str) -> SafeString:
    """low, medium, high, critical as bars and a word; forbidden as an icon and a word."""
    risk = vocabulary.RISKS.get(level)
    if risk is None:
        return format_html('<span class="risk risk--forbidden">{}Forbidden</span>', icon("ban"))
    return format_html('<span class="risk risk--{}">{}{}</span>', level, _bars(risk.bars), risk.word)


def _bars(lit: int) -> SafeString:
    """Four rising bars, the first `lit` of them in the colour of the risk."""
    bar = '<rect class="{}" x="{}" y="{}" width="3" height="{}" rx=".5"/>'
    bars = format_html_join("", bar, (("on" if n < lit else "off", n * 4, 9 - n * 3, 3 + n * 3) for n in range(4)))
    return format_html('<svg class="risk-bars" viewBox="0 0 15 12" aria-hidden="true">{}</svg>', bars)


@register.simple_tag
def status_text(status: str, label: str = "") -> SafeString:
    """A run's status as icon and word. `label` replaces the word ("Running, 5 to approve")."""
    return _status(status, label, "")


@register.simple_tag
def status_pill(status: str, label: str = "") -> SafeString:
    """The same on its tint, for headers."""
    return _status(status, label, " status--pill")


def _status(status: str, label: str, variant: str) -> SafeString:
    state = vocabulary.STATUSES.get(status, vocabulary.UNKNOWN_STATUS)
    spin = "icon--spin" if status in {"running", "executing"} else ""
    return format_html(
        '<span class="status status--{}{}">{}{}</span>',
        state.tone,
        variant,
        icon(state.icon, "", spin),
        label or state.word,
    )


@register.filter
def status_word(status: str) -> str:
    return vocabulary.STATUSES.get(status, vocabulary.UNKNOWN_STATUS).word


@register.simple_tag
@lru_cache(maxsize=1_000)
def kind_tile(kind: str, status: str = "", label: bool = False) -> SafeString:
    """The tinted icon of a step's kind; a failed, timed-out or denied step is red. With `label`, the word beside it."""
    tile = vocabulary.KINDS.get(kind, vocabulary.KINDS["result"])
    tone, name = tile.tone, tile.icon
    if status in vocabulary.FAILED_STEPS:
        tone = "bad"
        name = tile.icon if kind == "tool" else "circle-x"
    svg = icon(name, "" if label else tile.word)
    if label:
        return format_html('<span class="kind"><span class="tile tile--{}">{}</span>{}</span>', tone, svg, tile.word)
    return format_html('<span class="tile tile--{}" title="{}">{}</span>', tone, tile.word, svg)


@register.simple_tag
def score_chip(score: float | Decimal | None, threshold: float = 0.8) -> SafeString:
    """An evaluator's score, 0 to 1: check from the threshold on, cross below 0.5, triangle between."""
    if score is None:
        return mark_safe("")
    value = float(score)
    if value >= threshold:
        tone, name, words = "ok", "check", "passed"
    elif value < min(0.5, threshold):
        tone, name, words = "bad", "x", "failed"
    else:
        tone, name, words = "warn", "triangle-alert", "below the threshold"
    svg = icon(name, f"Score, {words}:")
    return format_html('<span class="score score--{}">{}{}</span>', tone, svg, f"{value:.2f}")


@register.simple_tag
def confidence(value: float | None, floor: float | None = None) -> SafeString:
    """The model's confidence in an action, as a percentage; amber when below the floor it needed."""
    if value is None:
        return mark_safe('<span class="confidence">Confidence <b>not given</b></span>')
    low = " confidence--low" if floor is not None and value < floor else ""
    return format_html('<span class="confidence{}">Confidence <b>{}</b></span>', low, percent(value))


@register.inclusion_tag("components/meter.html")
def meter(label: str, value: Any, limit: Any, unit: str = "count") -> dict[str, Any]:
    """A budget: value of limit, percent, a tick at the 80% warning. `unit` is money, tokens or count."""
    figures: dict[str, Callable[[Any], str]] = {"money": money, "tokens": tokens_short}
    show = figures.get(unit, tokens)
    share = float(value or 0) / float(limit) if limit else None
    tone = "" if share is None or share < 0.8 else "warn" if share < 1 else "bad"
    return {
        "label": label,
        "value": show(value or 0),
        "limit": show(limit) if limit else None,
        "percent": None if share is None else percent(share),
        "width": "0" if share is None else f"{min(share, 1) * 100:.1f}",
        "tone": tone,
    }


@register.inclusion_tag("components/countdown.html")
def countdown(deadline: dt.datetime | None, outcome: str = "", plain: bool = False) -> dict[str, Any]:
    """Time left until a deadline; `outcome` says what then happens ("then nothing runs"). `plain` has no tint."""
    now = dt.datetime.now(dt.UTC)
    seconds = max(0, int((deadline - now).total_seconds())) if deadline else 0
    level = "expired" if not seconds else "urgent" if seconds < 300 else "soon" if seconds < 1800 else "calm"
    return {
        "deadline": deadline.astimezone(dt.UTC).isoformat() if deadline else "",
        "server_now": now.isoformat(),
        "left": clock(seconds),
        "level": level,
        "outcome": outcome,
        "plain": plain,
    }


@register.filter
def initials(name: object) -> str:
    """Two letters for an avatar: Dana Okafor -> DO, admin -> AD."""
    words = str(name).split()
    letters = words[0][:2] if len(words) == 1 else "".join(word[0] for word in (words[:1] + words[-1:]))
    return letters.upper()


# --- figures ---------------------------------------------------------------------------------------------------------


@register.filter
def money(amount: Decimal | float | None, missing: str = "unpriced") -> str:
    """US dollars. None is `missing` (an unknown price), never zero; below a cent is <$0.01."""
    return _money(amount, missing, CENT)


@register.filter
def money3(amount: Decimal | float | None, missing: str = "unpriced") -> str:
    """Three decimals, for the token table only."""
    return _money(amount, missing, Decimal("0.001"))


def _money(amount: Decimal | float | None, missing: str, unit: Decimal) -> str:
    if amount is None or amount == "":
        return missing
    value = Decimal(str(amount))
    sign, size = (MINUS if value < 0 else ""), abs(value)
    if 0 < size < unit:
        return f"{sign}<${unit}"
    return f"{sign}${size.quantize(unit, ROUND_HALF_UP):,}"


@register.filter
def tokens(count: int | None) -> str:
    """20,400; also right for any count."""
    return NONE if count is None else f"{int(count):,}".replace("-", MINUS)


@register.filter
def tokens_short(count: int | None) -> str:
    """412k, 1.2M: for meters."""
    if count is None:
        return NONE
    number = int(count)
    if number < 1_000:
        return str(number)
    if number < 999_500:
        return f"{number / 1_000:.0f}k" if number >= 10_000 else _trim(number / 1_000) + "k"
    return _trim(number / 1_000_000) + "M"


def _trim(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


@register.filter
def duration_ms(milliseconds: float | None) -> str:
    """4.1s, 9m 48s, 3h 12m, 2d 4h."""
    if milliseconds is None:
        return NONE
    tenths = round(float(milliseconds) / 100)
    if tenths < 600:
        return "<0.1s" if milliseconds and not tenths else f"{tenths / 10:.1f}s"
    seconds = round(float(milliseconds) / 1000)
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60:02d}s"
    minutes = seconds // 60
    if minutes < 1440:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    return f"{minutes // 1440}d {minutes % 1440 // 60}h"


@register.filter
def clock(seconds: int) -> str:
    """27:18 below an hour, 3h 12m from there."""
    if seconds < 3600:
        return f"{seconds // 60:02d}:{seconds % 60:02d}"
    return duration_ms(seconds * 1000)


@register.filter
def percent(share: float | Decimal | None, decimals: int = 0) -> str:
    """0.86 -> 86%."""
    if share is None:
        return NONE
    text = f"{float(share) * 100:.{decimals}f}"
    return f"{_minus(text)}%"


@register.filter
def change(share: float | Decimal | None) -> str:
    """A signed change: 0.22 -> +22%, -0.06 -> −6%, none and nothing -> – and 0%."""
    if share is None:
        return NONE
    text = percent(share)
    return text if text.startswith((MINUS, "0%")) else f"+{text}"


@register.filter
def plus(text: str) -> str:
    """A formatted difference with its sign: $0.12 -> +$0.12, -0.30 -> −0.30; nothing and no difference stay."""
    text = _minus(str(text))
    return text if text.startswith((MINUS, NONE)) or not text.strip("$0.") else f"+{text}"


def _minus(text: str) -> str:
    if not text.startswith("-"):
        return text
    return text[1:] if not text.strip("-0.") else MINUS + text[1:]


@register.filter
def times(factor: float, other: float) -> float:
    """Product, for svg geometry in templates."""
    return float(factor) * float(other)


# --- times and text --------------------------------------------------------------------------------------------------


@register.simple_tag
def local_time(moment: dt.datetime | None, style: str = "datetime") -> SafeString:
    """A time in the reader's zone (times.js); without scripts absolute and in UTC.

    `style`: time (14:21), seconds (14:21:07), date (12 Mar), datetime (12 Mar 14:21), day (Today 12:10, 10 Mar 16:10),
    exact (12 Mar 2026 14:21:07).
    """
    if moment is None:
        return format_html("{}", NONE)
    utc = moment.astimezone(dt.UTC)
    shown = {
        "time": f"{utc:%H:%M} UTC",
        "seconds": f"{utc:%H:%M:%S} UTC",
        "date": f"{utc.day} {utc:%b}",
        "exact": f"{utc.day} {utc:%b %Y %H:%M:%S} UTC",
    }.get(style, f"{utc.day} {utc:%b %H:%M} UTC")
    return format_html('<time datetime="{}" data-local="{}">{}</time>', utc.isoformat(), style, shown)


# What a reader can't see but a program obeys: control and format characters (ANSI's escape, bidi, zero-width, tags),
# separators, fillers that draw nothing, and variation selectors other than the emoji one.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0e\ufeff\uffa0\ufff0-\uffff\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)


@register.filter(is_safe=True)
def visible(text: object) -> SafeString:
    """Escaped text with every invisible character as its code point: for what a model, a tool or the web wrote."""
    raw = ("" if text is None else str(text)).replace("\r\n", "\n")
    return mark_safe(_INVISIBLE.sub(_codepoint, escape(raw)))  # noqa: S308  (escaped; the rest is ours)


@register.filter
def visible_text(text: object) -> str:
    """The same where no element can stand, as in a title."""
    return _INVISIBLE.sub(lambda match: f"U+{ord(match.group()):04X}", "" if text is None else str(text))


def _codepoint(match: re.Match[str]) -> str:
    character = match.group()
    name = unicodedata.name(character, "CONTROL CHARACTER")
    return f'<span class="codepoint" title="{name}">U+{ord(character):04X}</span>'
