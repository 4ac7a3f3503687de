"""`OTEL_EXPORTER_OTLP_HEADERS` as OpenTelemetry specifies it: `name=value,name=value`, percent-encoded."""

from __future__ import annotations

import re
from urllib.parse import unquote

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x7e\x80-\xff]*")


class BadHeaders(ValueError):
    """The text names the place and never the value, which is a secret."""


def read(raw: str) -> dict[str, str]:
    """Names in lower case. Raises BadHeaders."""
    found: dict[str, str] = {}
    for number, pair in enumerate(filter(None, (part.strip() for part in raw.split(","))), 1):
        name, equals, value = pair.partition("=")
        name, value = unquote(name.strip()).lower(), unquote(value.strip())
        if not equals or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadHeaders(f"Entry {number} is not name=value with a header's name and value.")
        found[name] = value
    return found
