"""Times as people write them: `10 s`, `45 min`, `24 h`, `2 d`, and as whole seconds."""

from __future__ import annotations

import re
from decimal import Decimal

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
SPELLINGS = {
    "s": ("s", "sec", "second", "seconds"),
    "min": ("m", "min", "minute", "minutes"),
    "h": ("h", "hour", "hours"),
    "d": ("d", "day", "days"),
}
WRITTEN = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([a-z]*)", re.ASCII)


def written(seconds: int | None) -> str:
    """In the largest unit that says it whole, a single day as 24 h; empty for None."""
    if seconds is None:
        return ""
    whole = [unit for unit in ("d", "h", "min") if seconds and seconds % UNITS[unit] == 0 and seconds != UNITS["d"]]
    unit = "h" if seconds == UNITS["d"] else whole[0] if whole else "s"
    return f"{seconds // UNITS[unit]} {unit}"


def read(text: str, *, plain: str | None = None) -> int | None:
    """Seconds; None for an empty text. `plain`: the unit of a number without one. Raises ValueError with what to do."""
    text = text.strip().lower().replace(",", ".")
    if not text:
        return None
    found = WRITTEN.fullmatch(text)
    unit = next((unit for unit, words in SPELLINGS.items() if found and found[2] in words), plain)
    if found is None or unit is None or (found[2] and found[2] not in SPELLINGS[unit]):
        raise ValueError("Write a number and its unit, for example 45 min or 24 h.")
    seconds = Decimal(found[1]) * UNITS[unit]
    if seconds != seconds.to_integral_value():
        raise ValueError("Write whole seconds.")
    return int(seconds)
