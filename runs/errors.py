"""What commands refuse. Views show these at the field or as a message, the API as a problem document."""

from __future__ import annotations

from collections.abc import Mapping


class Invalid(Exception):
    """Input that can't be accepted: field -> message. Nothing was stored."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in errors.items()))
        self.errors = dict(errors)


class Conflict(Exception):
    """The row's state does not allow it. `status` is the state it has."""

    def __init__(self, detail: str, *, status: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
