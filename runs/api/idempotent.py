"""`Idempotency-Key` on POSTs: same key and body, same answer; another body, 409. Spaces and the order of fields do not
make another body: whoever tries again may write it anew."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.http import HttpRequest
from ninja import Status
from pydantic import JsonValue

from accounts.idempotency import UnusableKey, replay_or_run
from runs.errors import Invalid

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
OK = 200
ROUTE_LENGTH = 200


def idempotent(endpoint: Endpoint) -> Endpoint:
    """For endpoints that return a body, or a `Status` with one. A call that failed leaves its key free."""

    @wraps(endpoint)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return endpoint(request, *args, **kwargs)

        def produce() -> tuple[int, Any]:
            made = endpoint(request, *args, **kwargs)
            return (made.status_code, made.value) if isinstance(made, Status) else (OK, made)

        route = f"POST {request.path}"[:ROUTE_LENGTH]
        try:
            status, body, _ = replay_or_run(request.auth, key, route, _meant(request.body), produce)  # type: ignore[attr-defined]
        except UnusableKey as error:
            raise Invalid({"Idempotency-Key": str(error)}) from error
        return Status(status, body)

    # The router reads the endpoint's types from this signature; their names are known in the endpoint's module only.
    answer.__signature__ = inspect.signature(endpoint, eval_str=True)  # type: ignore[attr-defined]
    return answer  # type: ignore[return-value]


def _meant(body: bytes) -> bytes | JsonValue:
    try:
        meant: JsonValue = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return meant
