"""The form of a standing grant: a line for each argument of the action it is born from, as texts and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import pydantic
from django.http import QueryDict

from approvals.grants import Wish, matchers_of
from approvals.models import StandingGrant
from approvals.schemas import MatcherIn
from runs.engine import rules
from runs.errors import Invalid
from runs.models import Action

FIELDS = ("uses", "days", "value_argument", "value")
WORDS = {
    "equals": "is exactly",
    "one_of": "is one of",
    "at_most": "is at most",
    "prefix": "begins with",
    "any": "anything",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One argument: what the approved action said, the tests that fit it, and what is chosen."""

    name: str
    said: str
    tests: tuple[tuple[str, str], ...]
    test: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    grant: StandingGrant
    lines: tuple[tuple[str, str], ...]

    @property
    def used(self) -> int:
        return self.grant.uses_most - self.grant.uses_left

    @property
    def state(self) -> str:
        if self.grant.revoked_at:
            return f"revoked by {self.grant.revoked_by.label}" if self.grant.revoked_by else "revoked"
        return "used up" if not self.grant.uses_left else "its time is over"


def first(action: Action) -> dict[str, str]:
    """What the form starts with: exactly this action, five times, for a week."""
    typed = {"uses": "5", "days": "7", "value_argument": "", "value": ""}
    for name, value in action.args.items():
        typed[f"test-{name}"] = "equals"
        typed[f"value-{name}"] = _text(value)
    return typed


def typed(data: QueryDict) -> dict[str, str]:
    return {name: str(text) for name, text in data.items() if name in FIELDS or name.startswith(("test-", "value-"))}


def rows(action: Action, texts: Mapping[str, str]) -> list[Row]:
    return [
        Row(
            name=name,
            said=_text(value),
            tests=tuple((test, WORDS[test]) for test in _tests(value)),
            test=texts.get(f"test-{name}", "equals"),
            value=texts.get(f"value-{name}", _text(value)),
        )
        for name, value in action.args.items()
    ]


def numbers(action: Action) -> list[str]:
    return [name for name, value in action.args.items() if rules.number(value) is not None]


def read(action: Action, texts: Mapping[str, str]) -> Wish:
    """Raises `Invalid` by field."""
    errors: dict[str, str] = {}
    matchers = [each for name, value in action.args.items() if (each := _matcher(name, value, texts, errors))]
    wish = Wish(
        matchers=tuple(matchers),
        uses=_whole(texts, "uses", errors),
        days=_whole(texts, "days", errors),
        value_argument=texts.get("value_argument", ""),
        value=_amount(texts.get("value", ""), errors) if texts.get("value_argument") or texts.get("value") else None,
    )
    if errors:
        raise Invalid(errors)
    return wish


def described(grant: StandingGrant) -> Described:
    lines = []
    for matcher in matchers_of(grant):
        value = matcher.value if isinstance(matcher.value, list) else [matcher.value]
        words = WORDS[matcher.test]
        shown = "" if matcher.test == "any" else ", ".join(map(_text, value))
        lines.append((matcher.argument, f"{words} {shown}".strip()))
    return Described(grant=grant, lines=tuple(lines))


def _tests(value: Any) -> list[str]:
    tests = ["equals"]
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        tests.append("one_of")
    if rules.number(value) is not None:
        tests.append("at_most")
    if isinstance(value, str):
        tests.append("prefix")
    return [*tests, "any"]


def _matcher(name: str, said: Any, texts: Mapping[str, str], errors: dict[str, str]) -> MatcherIn | None:
    test, text = texts.get(f"test-{name}", ""), texts.get(f"value-{name}", "").replace("\r\n", "\n")
    if test not in _tests(said):
        errors[f"value-{name}"] = "Choose what this argument may be."
        return None
    try:
        return MatcherIn(argument=name, test=test, value=_value(test, said, text))
    except pydantic.ValidationError as refused:
        errors[f"value-{name}"] = str(refused.errors()[0]["msg"]).removeprefix("Value error, ").capitalize() + "."
    except ValueError as error:
        errors[f"value-{name}"] = str(error)
    return None


def _value(test: str, said: Any, text: str) -> Any:
    """Of the type that the approved action has there: the texts of a form don't know 1 from "1"."""
    if test == "any":
        return None
    if test == "at_most":
        number = rules.number(text.replace(",", "").removeprefix("$"))
        if number is None:
            raise ValueError("Write a number.")
        return int(number) if number == number.to_integral_value() else float(number)
    if test == "one_of":
        return [_of_type(said, part.strip()) for part in text.split("\n" if "\n" in text else ",") if part.strip()]
    return _of_type(said, text)


def _of_type(said: Any, text: str) -> Any:
    if isinstance(said, str):
        return text
    if text == _text(said):
        return said
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"“{text[:20]}” does not fit here.") from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _whole(texts: Mapping[str, str], name: str, errors: dict[str, str]) -> int:
    text = texts.get(name, "").strip()
    if not text.isdecimal() or len(text) > 6:
        errors[name] = "Write a whole number."
        return 1
    return int(text)


def _amount(text: str, errors: dict[str, str]) -> Decimal | None:
    try:
        return Decimal(text.strip().removeprefix("$").replace(",", ""))
    except InvalidOperation:
        errors["value"] = "Write the most that all uses together may come to."
        return None
