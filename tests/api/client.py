"""Calls of the HTTP API as a program makes them: a token, JSON, problem documents."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from django.http import HttpResponse
from django.test import Client

BASE = "/api/v1"
PROBLEM = "application/problem+json"
NO_ID = "00000000-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class Caller:
    """`token` None sends no Authorization at all."""

    token: str | None

    def get(self, path: str, **query: Any) -> HttpResponse:
        return self.call("GET", path, query=query)

    def put(self, path: str, body: Any) -> HttpResponse:
        return self.call("PUT", path, body)

    def post(self, path: str, body: Any = None, *, key: str | None = None) -> HttpResponse:
        return self.call("POST", path, body, headers={} if key is None else {"Idempotency-Key": key})

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> HttpResponse:
        """A body of bytes is sent as it is."""
        sent = {"Authorization": f"Bearer {self.token}"} if self.token is not None else {}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        response = Client().generic(
            method,
            f"{BASE}{path}",
            data,
            content_type="application/json",
            headers={**sent, **(headers or {})},
            query_params=query or {},
        )
        return cast("HttpResponse", response)


def words(text: str) -> set[str]:
    return set(text.split())


def fields_of(response: HttpResponse) -> list[str]:
    """The fields that a problem document names."""
    return [error["field"] for error in json.loads(response.content)["errors"]]


def answer(response: HttpResponse, status: int = 200) -> Any:
    assert response.status_code == status, response.content.decode()
    assert response["Content-Type"].startswith("application/json"), response["Content-Type"]
    return json.loads(response.getvalue())


def problem(response: HttpResponse, status: int, *fields: str) -> dict[str, Any]:
    """The problem document, which every refusal is; `fields` are all that its errors name."""
    assert response.status_code == status, response.content.decode()
    assert response["Content-Type"] == PROBLEM
    body: dict[str, Any] = json.loads(response.content)
    assert {"type", "title", "status", "detail"} <= set(body)
    assert all(isinstance(body[name], str) and body[name] for name in ("type", "title", "detail"))
    assert body["status"] == status
    for error in body.get("errors", []):
        assert set(error) == {"field", "message"}
        assert all(isinstance(text, str) and text for text in error.values())
    assert sorted(error["field"] for error in body.get("errors", [])) == sorted(fields)
    return body
