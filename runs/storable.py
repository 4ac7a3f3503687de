"""Text and JSON from models and tools as both databases can hold them.

PostgreSQL knows no NUL in text and neither database knows NaN in JSON. What can't be stored is replaced, never refused:
a call that was made, or an effect that happened, must not lose its record over a character.
"""

from __future__ import annotations

import math
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(value: Any) -> Any:
    """The same value without NUL, halves of surrogate pairs and numbers that are none."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {storable_text(str(key)): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def storable_text(text: str) -> str:
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", REPLACEMENT).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
