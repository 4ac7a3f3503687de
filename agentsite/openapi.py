"""What the description of the API says of every call alike: its errors, and the key that lets a POST be repeated."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

TEXT = {"type": "string"}
PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "Problem details, RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "errors": {
            "type": "array",
            "description": "With 422: what is wrong, field by field.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": TEXT, "message": TEXT},
            },
        },
    },
}
MEANING = {
    400: "The body is not JSON.",
    401: "There is no usable token.",
    403: "The user's role, or a scope of the token, does not allow it.",
    404: "It is not there, or another team's.",
    409: "It is not possible as things stand, or the Idempotency-Key was used for another request.",
    422: "Something in the request is wrong; `errors` says what.",
    429: "Too many calls in this minute; `Retry-After` says when to go on.",
}
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again with the same body it gets the first answer, and nothing happens twice.",
    "schema": {**TEXT, "minLength": 1, "maxLength": 255},
}


def describe(schema: dict[str, Any]) -> None:
    """Adds to an OpenAPI document, in place, the error answers of each operation, and the key that POSTs take."""
    parts = schema.setdefault("components", {})
    parts.setdefault("schemas", {})["Problem"] = PROBLEM
    parts["responses"] = {HTTPStatus(status).name: _answer(status) for status in MEANING}
    for operations in schema["paths"].values():
        for method, operation in operations.items():
            if method == "post":
                operation.setdefault("parameters", []).append(KEY)
            for status in _errors(method, operation):
                operation["responses"][status] = {"$ref": f"#/components/responses/{HTTPStatus(status).name}"}


def _answer(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answer: dict[str, Any] = {"description": MEANING[status], "content": content}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return answer


def _errors(method: str, operation: dict[str, Any]) -> list[int]:
    """Those that the call can answer with."""
    parameters = operation.get("parameters", [])
    has_body = "requestBody" in operation
    possible = {
        400: has_body,
        404: any(each["in"] == "path" for each in parameters),
        409: method == "post",
        422: has_body or any(each["in"] != "path" for each in parameters),
    }
    return [status for status in MEANING if possible.get(status, True)]
