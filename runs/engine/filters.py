"""Patterns of what should not be kept, and of what should not be obeyed: secrets, personal data, instructions in data.

Patterns err on the side of finding nothing: numbers are checked by their own check digits. What they miss is no proof
that nothing is there.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

REDACTED = "[redacted: {}]"
MASK = "•"
MOST_EXCERPT = 160
SHORT_KEY = 8  # no pattern fits into a shorter one
OFF, REDACT, MARK, BLOCK = "off", "redact", "mark", "block"
KINDS = ("secrets", "personal", "contacts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What is done with each kind: off, redact (in what is stored and shown), block (the run stops).

    For instructions found in tool results: off, mark (what follows is routed one level up) or block.
    """

    secrets: str = REDACT
    personal: str = REDACT
    contacts: str = OFF
    instructions: str = MARK


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    kind: str
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Pattern:
    """`hints`: one of them is in every text that can match; none given means that the pattern itself is quick."""

    kind: str
    name: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()
    check: Callable[[str], bool] = lambda text: True
    group: int = 0
    digits: int = 0  # so many digits, parted by at most blanks and hyphens, are in every text that can match


def find(text: str, filters: Filters) -> list[Finding]:
    """What the filters are to act on, in order and without overlaps; the longest where two begin together."""
    kinds = [kind for kind in KINDS if getattr(filters, kind) != OFF]
    found = sorted(_matches(text, kinds), key=lambda one: (one.start, -one.end))
    kept: list[Finding] = []
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def redact(text: str, filters: Filters) -> str:
    parts, at = [], 0
    for one in find(text, filters):
        parts += [text[at : one.start], REDACTED.format(one.name)]
        at = one.end
    return "".join([*parts, text[at:]]) if parts else text


def redacted(value: Any, filters: Filters) -> Any:
    """A JSON value with every text redacted; the same object when nothing was found. A text under a name such as
    `password` is a secret whatever it looks like."""
    if isinstance(value, str):
        return redact(value, filters)
    if not isinstance(value, dict | list | tuple) or not _may_hold(value, filters):
        return value
    return _redacted(value, filters)


def _redacted(value: Any, filters: Filters) -> Any:
    if isinstance(value, str):
        return redact(value, filters)
    if isinstance(value, dict):
        new = {redact(key, filters): _entry(key, item, filters) for key, item in value.items()}
        same = all(new.get(key) is item for key, item in value.items())
        return value if same and len(new) == len(value) else new
    if isinstance(value, list | tuple):
        items = [_redacted(item, filters) for item in value]
        return value if all(new is old for new, old in zip(items, value, strict=True)) else items
    return value


def names_in(value: Any, filters: Filters, action: str) -> list[str]:
    """What of the kinds with this action is in a JSON value, by name."""
    acted = Filters(**{kind: REDACT if getattr(filters, kind) == action else OFF for kind in KINDS})
    found: list[str] = []
    for key, text in _texts(value):
        if acted.secrets != OFF and SECRET_NAME.fullmatch(key) and text:
            found.append("password or key")
        found += [one.name for one in find(text, acted)]
    return list(dict.fromkeys(found))


def masked(text: str, filters: Filters) -> str:
    """The part of a growing text that may be shown already, as long as it is: what was found is covered, and the end,
    which may be the beginning of something, is held back."""
    covered = list(text)
    for one in find(text, filters):
        covered[one.start : one.end] = MASK * (one.end - one.start)
    tail = _TAIL.search(text)
    return "".join(covered)[: tail.start() if tail else len(text)]


def instructions(text: str) -> list[str]:
    """Excerpts of what reads like an instruction to the model, in the order they stand in the text."""
    plain = _plain(text)
    lower = plain.lower()
    found = [
        match
        for hints, pattern in _INSTRUCTIONS
        if any(hint in lower for hint in hints)
        for match in pattern.finditer(plain)
    ]
    excerpts = [_excerpt(plain, match) for match in sorted(found, key=lambda match: match.start())]
    return list(dict.fromkeys(excerpts))


def instructions_in(value: Any) -> list[str]:
    return instructions("\n".join(text for _, text in _texts(value)))


# --- patterns --------------------------------------------------------------------------------------------------------


def _luhn(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _iban(text: str) -> bool:
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    turned = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def _p(kind: str, name: str, pattern: str, *hints: str, flags: int = 0, **more: Any) -> _Pattern:
    return _Pattern(kind, name, re.compile(pattern, flags), hints, **more)


_ASSIGNED = r"(?:password|passwd|passphrase|secret|api[_-]?key|access[_-]?token|auth[_-]?token|client[_-]?secret)"
SECRET_NAME = re.compile(rf"(?:\w*[_-])?{_ASSIGNED}", re.IGNORECASE)
_PATTERNS = (
    _p(
        "secrets",
        "private key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        "PRIVATE KEY-----",
        flags=re.DOTALL,
    ),
    _p("secrets", "API key", r"\bsk-[A-Za-z0-9_-]{20,}", "sk-"),
    _p("secrets", "API key", r"\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}", "k_live_", "k_test_"),
    _p("secrets", "API key", r"\bAIza[A-Za-z0-9_-]{35}", "AIza"),
    _p("secrets", "access key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", "AKIA", "ASIA"),
    _p("secrets", "access token", r"\bgh[pousr]_[A-Za-z0-9]{36,}", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _p("secrets", "access token", r"\bgithub_pat_[A-Za-z0-9_]{22,}", "github_pat_"),
    _p("secrets", "access token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}", "xox"),
    _p("secrets", "access token", r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}", "eyJ"),
    _p(
        "secrets",
        "access token",
        r"\bbearer\s+([A-Za-z0-9._~+/-]{16,}=*)",
        "earer ",
        "EARER ",
        flags=re.IGNORECASE,
        group=1,
    ),
    _p("secrets", "password", r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:([^\s/@]+)@", "://", flags=re.IGNORECASE, group=1),
    _p(
        "secrets",
        "password or key",
        rf"(?<![A-Za-z]){_ASSIGNED}\b[\"']?\s*[:=]\s*[\"']?([^\s\"',;{{}}\[\]]{{6,}})",
        "ass",
        "ASS",
        "ecret",
        "ECRET",
        "key",
        "KEY",
        "Key",
        "oken",
        "OKEN",
        flags=re.IGNORECASE,
        group=1,
    ),
    _p(
        "secrets",
        "password or key",
        rf"(?<![A-Za-z]){_ASSIGNED}\s+is\s+[\"']?((?=\S*\d)[^\s\"',;{{}}\[\]]{{6,}})",
        " is ",
        flags=re.IGNORECASE,
        group=1,
    ),
    _p(
        "personal",
        "card number",
        r"(?<![\w.-])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d)(?:[ -]?\d{4}){3}(?![\w-]|\.\d)",
        check=_luhn,
        digits=16,
    ),
    _p("personal", "card number", r"(?<![\w.-])3[47]\d\d[ -]?\d{6}[ -]?\d{5}(?![\w-]|\.\d)", check=_luhn, digits=15),
    _p("personal", "bank account", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", check=_iban),
    _p(
        "personal",
        "social security number",
        r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])",
        "-",
        digits=9,
    ),
    _p("contacts", "e-mail address", r"\b[\w.+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+\b", "@"),
    _p("contacts", "phone number", r"(?<![\w+.-])\+\d{1,3}[ -]?(?:\(?\d{1,4}\)?[ -]?){2,5}\d{2,4}(?![\w-])", "+"),
    _p("contacts", "phone number", r"(?<![\w+.-])\(?[2-9]\d\d\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"),
)
_DIGITS = re.compile(r"\d(?:[ -]?\d){8,40}")
# The start of something may stand at the end of what has been written so far.
_TAIL = re.compile(r"(?:\d[\d -]{0,24})?\S{0,4096}\Z")

_WHO = r"(?:ai|a\.i\.|assistant|agent|bot|chatbot|llm|(?:large )?language model|model)"
_OBEY = ("ignore", "disregard", "forget", "override", "bypass")
_INSTRUCTIONS = tuple(
    (hints, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
    for hints, pattern in (
        (
            _OBEY,
            r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,40}"
            r"\b(?:instructions?|prompts?|rules?|directions?|guidelines?|polic(?:y|ies)|restrictions?)\b",
        ),
        (
            ("new", "updated", "real", "actual", "further", "special"),
            r"\b(?:new|updated|real|actual|further|special)\s+(?:instructions?|task|orders?)\s+(?:for|to)\s+"
            rf"(?:you|(?:the\s+)?{_WHO})\b",
        ),
        (
            ("instruction", "note", "message", "attention", "notice"),
            r"\b(?:instructions?|note|message|attention|notice)\s*(?:for|to|,|:)?\s*(?:the\s+|any\s+|all\s+)?"
            rf"{_WHO}s?\b\s*[:,.!-]",
        ),
        (("dear", "hey", "hello", "hi"), rf"\b(?:dear|hey|hello|hi)\s+(?:the\s+)?{_WHO}\b"),
        (("if you are",), rf"\bif you are an?\s+{_WHO}\b"),
        (
            ("you are now", "your "),
            r"\byou are now\b|\byour (?:new|real|actual) (?:task|goal|role|instructions?)\b",
        ),
        (("system", "developer"), r"^\W{0,3}(?:system|developer)(?:\s+(?:message|prompt|note|override))?\s*:"),
        (("<", "["), r"<\|?/?(?:system|im_start|im_end|assistant)\|?>|\[/?(?:INST|SYSTEM)\]|<<SYS>>"),
        (
            ("not", "don't", "don’t", "never"),
            r"\b(?:do not|don['’]t|never)\s+(?:tell|inform|mention|show|alert|notify|ask)\b[^.\n]{0,30}"
            r"\b(?:user|human|person|people|operator|approver|anyone|anybody)\b",
        ),
        (
            ("without",),
            r"\bwithout\s+(?:asking|telling|notifying|informing|waiting for)\b[^.\n]{0,30}"
            r"\b(?:user|human|person|people|operator|approver|approval|anyone|anybody|confirmation)\b",
        ),
        (
            ("prompt", "your instructions"),
            r"\b(?:reveal|print|repeat|output|send|show)\b[^.\n]{0,20}"
            r"\b(?:system prompt|your (?:instructions|prompt))\b",
        ),
        (
            ("tool", "function"),
            r"\b(?:call|use|invoke|run)\s+the\s+[`'\"]?[\w.]+[`'\"]?\s+(?:tool|function)\b",
        ),
    )
)


def _matches(text: str, kinds: list[str]) -> Iterator[Finding]:
    digits = max((sum(map(str.isdigit, run)) for run in _DIGITS.findall(text)), default=0)
    for each in _PATTERNS:
        if each.kind not in kinds or (each.hints and not any(hint in text for hint in each.hints)):
            continue
        if each.digits > digits:
            continue
        for match in each.pattern.finditer(text):
            if each.check(match.group()) and not match.group(each.group).startswith("[redacted"):
                start, end = match.span(each.group)
                yield Finding(kind=each.kind, name=each.name, start=start, end=end)


def _entry(key: Any, item: Any, filters: Filters) -> Any:
    if filters.secrets != OFF and isinstance(item, str) and item and SECRET_NAME.fullmatch(str(key)):
        return item if item.startswith("[redacted") else REDACTED.format("password or key")
    return _redacted(item, filters)


def _may_hold(value: Any, filters: Filters) -> bool:
    """All texts at once: most hold nothing, and one long text is looked through faster than many short ones."""
    texts = list(_texts(value))
    if filters.secrets != OFF and any(SECRET_NAME.fullmatch(name) for name in {name for name, _ in texts}):
        return True
    keys = {key for key in _keys(value) if len(key) > SHORT_KEY}
    return bool(find("\n".join([*(text for _, text in texts), *keys]), filters))


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _keys(item)


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(name it stands under, text) for each text of a JSON value."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _plain(text: str) -> str:
    """As a reader sees it: look-alikes folded, what can't be seen left out."""
    if text.isascii():
        return text
    folded = unicodedata.normalize("NFKC", text)
    return "".join(character for character in folded if unicodedata.category(character) != "Cf")


def _excerpt(text: str, match: re.Match[str]) -> str:
    start = max(text.rfind("\n", 0, match.start()), text.rfind(". ", 0, match.start()) + 1, match.start() - 60, 0)
    return " ".join(text[start : max(match.end(), start + MOST_EXCERPT)].split())[:MOST_EXCERPT]
