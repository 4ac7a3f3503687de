"""What a field of the query language is, and how its values are read. The fields themselves are in `vocabulary.py`."""

from __future__ import annotations

import datetime as dt
import difflib
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from runs.words import words


class Type(StrEnum):
    CHOICE = "choice"  # one of a closed list: a typo is refused
    LEVEL = "level"  # a closed list with an order
    NAME = "name"  # compared whole, whatever the case; * stands for anything
    TEXT = "text"  # its words are contained
    MONEY = "money"
    DURATION = "duration"  # milliseconds
    COUNT = "count"
    SCORE = "score"
    PERCENT = "percent"
    NUMBER = "number"
    TIME = "time"
    RUN = "run"  # number or id
    ID = "id"


ORDERED = frozenset(
    {Type.LEVEL, Type.MONEY, Type.DURATION, Type.COUNT, Type.SCORE, Type.PERCENT, Type.NUMBER, Type.TIME}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`says` and `denies` are the reading's clause, with `{}` for the comparison in words. A field `of_step` holds for
    some step of the run, outside `step:{…}`; one `of_note` asks about what people noted, not about the journal. `key`
    is what stands behind the dot of `meta.` and `eval.`."""

    name: str
    type: Type
    says: str
    denies: str
    hint: str
    choices: tuple[str, ...] = ()
    synonyms: tuple[tuple[str, str], ...] = ()
    of_step: bool = False
    of_note: bool = False
    key: str = ""
    called: str = ""

    @property
    def noun(self) -> str:
        return self.called or self.name


Value = str | Decimal | int | dt.datetime


NO_WORDS = "“{}” holds no letter and no digit: only these are searched."


class BadValue(ValueError):
    """A value that its field cannot take; `suggestion` replaces it."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


def did_you_mean(word: str, known: Sequence[str]) -> str | None:
    """The nearest of `known`, or None when nothing is near."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)
    if near:
        return near[0]
    starts = [name for name in known if word and name.startswith(word.lower())]
    return starts[0] if len(starts) == 1 else None


def read_value(field: Field, raw: str) -> Value:
    """A value other than a time. Raises BadValue."""
    reader = _READERS.get(field.type)
    return reader(field, raw) if reader else raw


def _money(field: Field, raw: str) -> Decimal:
    return _number(raw.removeprefix("$"), f"{field.name} takes dollars, such as 0.50", scale=9)


def _plain_number(field: Field, raw: str) -> Decimal:
    message = f"{field.name}.{field.key} is compared with a number, such as 5 or 0.5"
    number = _number(raw.removeprefix("-"), message)
    return -number if raw.startswith("-") else number


def _score(field: Field, raw: str) -> Decimal:
    message = f"{field.name} takes a number from 0 to 1, such as 0.6"
    score = _number(raw, message)
    if not 0 <= score <= 1:
        raise BadValue(message)
    return score


def _name(field: Field, raw: str) -> str:
    return _starred_at_the_end(raw) if field.name in ("meta", "tag") else raw


def _text(field: Field, raw: str) -> str:
    if not words(raw):
        raise BadValue(NO_WORDS.format(raw))
    return _starred_at_the_end(raw)


def _starred_at_the_end(raw: str) -> str:
    if "*" in raw.removesuffix("*"):
        raise BadValue("A star stands at the end of a value here; elsewhere it would stand for nothing.")
    return raw


def _choice(field: Field, raw: str) -> str:
    word = raw.strip().lower().replace(" ", "_").replace("-", "_")
    word = dict(field.synonyms).get(word, word)
    if word in field.choices:
        return word
    near = did_you_mean(word, field.choices)
    hint = f"did you mean {near}?" if near else f"it is one of {', '.join(field.choices)}."
    raise BadValue(f"“{raw}” is not a {field.noun}: {hint}", near)


_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?|\.[0-9]{1,12}", re.ASCII)
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def _number(raw: str, message: str, scale: int = 6) -> Decimal:
    text = raw.replace(",", "")
    if not _NUMBER.fullmatch(text):
        raise BadValue(f"“{raw}” is not a number: {message}.")
    return Decimal(text).quantize(Decimal(1).scaleb(-scale))


def _count(field: Field, raw: str) -> int:
    match = re.fullmatch(r"([0-9.,]+)([kKmM]?)", raw, re.ASCII)
    message = f"{field.name} takes a count, such as 500 or 10k"
    if not match:
        raise BadValue(f"“{raw}” is not a number: {message}.")
    return min(int(_number(match[1], message) * _UNITS[match[2].lower()]), 2**62)


_SPAN_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SPAN = re.compile(r"(?:[0-9]{1,6}(?:\.[0-9]{1,3})?(?:ms|s|m|h|d|w))+", re.ASCII)
_SPAN_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d|w)", re.ASCII)


def span_ms(raw: str) -> int | None:
    """`90s`, `1m30s`, `14d` in milliseconds; None for anything else."""
    text = raw.lower().replace(" ", "")
    if not _SPAN.fullmatch(text):
        return None
    return int(sum(Decimal(number) * _SPAN_MS[unit] for number, unit in _SPAN_PART.findall(text)))


def _duration_ms(field: Field, raw: str) -> int:
    if (milliseconds := span_ms(raw)) is not None:
        return milliseconds
    return int(_number(raw, f"{field.name} takes a time, such as 30s, 10m or 2h") * 1000)


def _percent(field: Field, raw: str) -> Decimal:
    message = f"{field.name} takes a percentage, such as 40%"
    share = _number(raw.removesuffix("%"), message, scale=2)
    if not 0 <= share <= 100:
        raise BadValue(f"{message}.")
    return share


def _id(field: Field, raw: str) -> str:
    try:
        return str(uuid.UUID(raw))
    except ValueError:
        raise BadValue(f"“{raw}” is not an id: {field.name} takes one such as {_AN_ID}.") from None


def _run(field: Field, raw: str) -> str:
    match = re.fullmatch(r"[rR]?-?([0-9]{1,9})", raw, re.ASCII)
    if match:
        return match[1]
    try:
        return str(uuid.UUID(raw))
    except ValueError:
        raise BadValue(f"“{raw}” is not a run: write its number, such as R-1840, or its id.") from None


_READERS: dict[Type, Callable[[Field, str], Value]] = {
    Type.CHOICE: _choice,
    Type.LEVEL: _choice,
    Type.NAME: _name,
    Type.TEXT: _text,
    Type.MONEY: _money,
    Type.SCORE: _score,
    Type.PERCENT: _percent,
    Type.NUMBER: _plain_number,
    Type.COUNT: _count,
    Type.DURATION: _duration_ms,
    Type.RUN: _run,
    Type.ID: _id,
}

_AN_ID = "0197f3a2-6c1e-7d3b-9a54-2f1c8e7b6d50"
_FAR = dt.timedelta(days=36_500)


def read_time(field: Field, raw: str, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """(start, end) of what is named: a day for a date, one instant for anything finer. Raises BadValue."""
    text = raw.strip().lower()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    day = dt.timedelta(days=1)
    if text in ("now", "today", "yesterday"):
        start = {"now": now, "today": midnight, "yesterday": midnight - day}[text]
        return start, start if text == "now" else start + day
    ago = span_ms(text.removeprefix("-"))
    if ago is not None:
        moment = now - min(dt.timedelta(milliseconds=ago), _FAR)
        return moment, moment
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
            start = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), now.tzinfo)
            return start, start + day
        moment = dt.datetime.fromisoformat(raw.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
        moment.astimezone(dt.UTC)
        return moment, moment
    except (ValueError, OverflowError):
        message = f"“{raw}” is not a time: {field.name} takes 14d, 24h, today or 2026-11-01."
        raise BadValue(message, _time_fix(text)) from None


def _time_fix(text: str) -> str | None:
    """`14 days` and the like, as the language writes them."""
    match = re.fullmatch(r"-?(\d{1,4})\s*(second|sec|minute|min|hour|hr|day|week)s?", text, re.ASCII)
    return f"{match[1]}{match[2][0]}" if match else None
