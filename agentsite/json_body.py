"""JSON as both databases can hold it: no NaN, no name twice, no NUL, no half of a surrogate pair, no deep nesting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest
from django.utils.datastructures import MultiValueDict
from ninja.parser import Parser

from runs import strict_json
from runs.errors import Invalid

MOST_LEVELS = 60


class JsonParser(Parser):
    """Raises `Invalid` naming the fields, ValueError for what is no JSON at all."""

    def parse_body(self, request: HttpRequest) -> dict[str, Any]:
        body: dict[str, Any] = strict_json.loads(request.body)
        _check(body)
        return body

    def parse_querydict(
        self, data: MultiValueDict[str, str], list_fields: list[str], request: HttpRequest
    ) -> dict[str, Any]:
        query: dict[str, Any] = super().parse_querydict(data, list_fields, request)
        _check(query)
        return query


def _check(value: object) -> None:
    errors = dict(_faults(value, (), 0))
    if errors:
        raise Invalid(errors)


def _faults(value: object, path: tuple[str, ...], level: int) -> Iterator[tuple[str, str]]:
    fault = _fault(value, level)
    if fault:
        yield ".".join(path) or "body", fault
    elif isinstance(value, dict):
        for key, item in value.items():
            key_fault = _fault(key, level)
            if key_fault:
                yield ".".join(path) or "body", f"A name in it can't be used. {key_fault}"
            else:
                yield from _faults(item, (*path, key), level + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, (*path, str(index)), level + 1)


def _fault(value: object, level: int) -> str:
    if isinstance(value, str):
        return _fault_of_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "This number is too large."
    if isinstance(value, dict | list) and level >= MOST_LEVELS:
        return f"Nested deeper than {MOST_LEVELS} levels."
    return ""


def _fault_of_text(text: str) -> str:
    if "\x00" in text:
        return "The text contains the character NUL."
    try:
        text.encode()
    except UnicodeEncodeError:
        return "The text contains half of a surrogate pair."
    return ""
