"""Tests of one argument of a call: for rules that make a policy stricter, and for what a standing grant covers.

A rule whose argument is missing or of another kind counts as met, so nothing gets past it by leaving the argument out;
a grant's matcher in the same place counts as not met. Both ways the doubt goes to a person.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from runs.engine.types import JsonObject, Policy, Risk

SHOWN = 60  # characters of a value in a policy line


class Comparison(StrEnum):
    ABOVE = "above"
    AT_MOST = "at_most"
    EQUALS = "equals"
    ONE_OF = "one_of"
    NOT_ONE_OF = "not_one_of"
    PREFIX = "prefix"
    NOT_SUFFIX = "not_suffix"
    ANY = "any"


NUMBERS = frozenset({Comparison.ABOVE, Comparison.AT_MOST})
TEXTS = frozenset({Comparison.PREFIX, Comparison.NOT_SUFFIX})
LISTS = frozenset({Comparison.ONE_OF, Comparison.NOT_ONE_OF})
WORDS = {
    Comparison.ABOVE: "above",
    Comparison.AT_MOST: "at most",
    Comparison.EQUALS: "equal to",
    Comparison.ONE_OF: "one of",
    Comparison.NOT_ONE_OF: "none of",
    Comparison.PREFIX: "beginning with",
    Comparison.NOT_SUFFIX: "not ending in",
    Comparison.ANY: "anything",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`argument` may be a path ("changes.amount"). What a met rule asks for: a risk, a policy, or both."""

    argument: str
    test: Comparison
    value: Any
    risk: Risk | None = None
    policy: Policy | None = None

    @property
    def demands(self) -> Policy | None:
        """What raises the risk to high or critical is never left to confidence."""
        if self.policy is None and self.risk in (Risk.HIGH, Risk.CRITICAL):
            return Policy.REVIEW
        return self.policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    rule: Rule
    reason: str  # for the policy line: "amount is 412.5, above the 250 from which two people decide"


def met(rules: tuple[Rule, ...], args: JsonObject) -> list[Met]:
    """The rules that these arguments meet, in the policy's order."""
    return [Met(rule=rule, reason=reason) for rule in rules if (reason := _reason(rule, args))]


def holds(test: Comparison, wanted: Any, value: Any) -> bool | None:
    """Whether the value passes; None when it is of a kind that this test can't be asked of."""
    if test is Comparison.ANY:
        return True
    if test in NUMBERS:
        return _number_holds(test, wanted, value)
    if test in TEXTS:
        return _text_holds(test, wanted, value)
    if test is Comparison.EQUALS:
        return same(wanted, value)
    found = any(same(each, value) for each in wanted)
    return found if test is Comparison.ONE_OF else not found


def covers(test: Comparison, wanted: Any, value: Any) -> bool:
    """As `holds`, for a permission: doubt is no, and so is a number below zero where only "at most" was said."""
    if test is Comparison.AT_MOST and (number(value) or Decimal(0)) < 0:
        return False
    if test is Comparison.PREFIX and isinstance(value, str) and (".." in value or not _is_plain(value)):
        return False
    return holds(test, wanted, value) is True


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is 1.0 but neither "1" nor true, at any depth."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def number(value: Any) -> Decimal | None:
    """A JSON number, or a text that is one, as money often comes. None for all else, NaN and the infinities too."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value).strip())
    except (InvalidOperation, ValueError):
        return None
    return found if found.is_finite() else None


def at(args: JsonObject, path: str) -> tuple[bool, Any]:
    """(found, value) of an argument; a dot goes into an object, unless an argument is named with the dot itself."""
    if path in args:
        return True, args[path]
    value: Any = args
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False, None
        value = value[name]
    return True, value


def _reason(rule: Rule, args: JsonObject) -> str:
    there, value = at(args, rule.argument)
    passed = holds(rule.test, rule.value, value) if there else None
    if passed is False:
        return ""
    limit = f"{WORDS[rule.test]} {shown(rule.value)}"
    if passed is None:
        doubt = "can’t be read" if there else "is missing"
        return f"{rule.argument} {doubt}, and {limit} {_consequence(rule)}"
    if rule.test is Comparison.ABOVE:
        return f"{rule.argument} is {shown(value)}, above the {shown(rule.value)} from which {_consequence(rule)}"
    return f"{rule.argument} is {shown(value)}, {limit}, for which {_consequence(rule)}"


def _consequence(rule: Rule) -> str:
    return {
        Policy.TWO_PERSON: "two people decide",
        Policy.REVIEW: "a person decides",
        Policy.FORBIDDEN: "this tool is forbidden",
    }.get(rule.demands or Policy.AUTO, f"the risk is {rule.risk}" if rule.risk else "nothing changes")


def shown(value: Any) -> str:
    """A value in a line of words, cut where it is long: the whole of it stands in the preview."""
    if isinstance(value, list):
        return ", ".join(shown(each) for each in value[:5]) + (" …" if len(value) > 5 else "")
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _number_holds(test: Comparison, wanted: Any, value: Any) -> bool | None:
    found, limit = number(value), number(wanted)
    if found is None or limit is None:
        return None
    return found > limit if test is Comparison.ABOVE else found <= limit


def _text_holds(test: Comparison, wanted: Any, value: Any) -> bool | None:
    if not isinstance(value, str) or not isinstance(wanted, str):
        return None
    if test is Comparison.PREFIX:
        return value.startswith(wanted)
    return not value.strip().casefold().endswith(wanted.casefold())


def _is_plain(text: str) -> bool:
    """Without control, invisible or direction-changing characters, which make a text look like another."""
    return not any(unicodedata.category(char) in ("Cc", "Cf") for char in text)
