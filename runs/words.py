"""The one spelling in which text is searched: its words in lower case without accents, with single blanks between.

Everything that is neither letter nor digit separates words, so `ORD-48213`, an e-mail address and a URL are words side
by side, and are found as such. Both databases and the matcher in memory compare this spelling alone.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

LONGEST_WORD = 120

_PLAIN = re.compile(r"[a-z0-9]+")
# Ideographs and kana are written without blanks: each is a word, and words in quotes are found as phrases.
_IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_ANY = re.compile(rf"[{_IDEOGRAPH}]|(?:(?![{_IDEOGRAPH}])[^\W_])+")
_ACCENTS = re.compile("[\u0300-\u036f]+")


def words(text: str) -> list[str]:
    """The words of a text in order. Longer ones than LONGEST_WORD are cut, here and in what is asked for."""
    if text.isascii():
        found = _PLAIN.findall(text.lower())
    else:
        bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
        found = _ANY.findall(unicodedata.normalize("NFKC", bare).casefold())
    return [word[:LONGEST_WORD] for word in found]


def spelled(found: list[str]) -> str:
    """Words as they are stored: a blank before and after each, so that a whole word is a plain substring."""
    return f" {' '.join(found)} " if found else ""


def text_of(value: Any, most: int) -> tuple[str, bool]:
    """(what is said in a JSON value, names and values in order, whether it was cut at `most` characters)."""
    if isinstance(value, str):
        return value[:most], len(value) > most
    pieces: list[str] = []
    size = 0
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            for key, inner in reversed(item.items()):
                stack.append(inner)
                stack.append(str(key))
        elif isinstance(item, list):
            stack.extend(reversed(item))
        elif item is not None and item != "":
            piece = item if isinstance(item, str) else _scalar(item)
            pieces.append(piece[: most - size])
            size += len(piece) + 1
            if size > most:
                return " ".join(pieces), True
    return " ".join(pieces), False


def _scalar(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
