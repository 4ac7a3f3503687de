"""The description of the API, and its page under the strict content security policy."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.test import Client, RequestFactory

from agentsite.api import CALLS_A_MINUTE, Compact, problem

DOCUMENTED = {
    ("put", "/agents/{slug}"),
    ("get", "/agents"),
    ("get", "/agents/{slug}"),
    ("put", "/tool-servers/{slug}"),
    ("get", "/tools"),
    ("post", "/runs"),
    ("get", "/runs"),
    ("get", "/runs/{run_id}"),
    ("get", "/runs/{run_id}/steps"),
    ("post", "/runs/{run_id}/pause"),
    ("post", "/runs/{run_id}/resume"),
    ("post", "/runs/{run_id}/cancel"),
    ("post", "/runs/{run_id}/messages"),
    ("get", "/approvals"),
    ("post", "/approvals/{batch_id}/decisions"),
    ("get", "/traces"),
    ("get", "/traces/{run_id}"),
    ("get", "/traces/aggregate"),
    ("get", "/costs"),
}


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.sources: list[str] = []
        self._script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given and given.get("type") != "application/json"):
            self.inline.append(tag)
        self.sources += [url for url in (given.get("src"), given.get("href")) if url]


@pytest.mark.django_db
def test_the_page_has_nothing_that_the_policy_blocks() -> None:
    response = Client().get("/api/v1/docs")
    assert response.status_code == 200
    policy = response["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    page = Page(response.content.decode())
    assert page.inline == []
    assert page.sources
    for url in page.sources:
        assert url.startswith(settings.STATIC_URL), url
        assert finders.find(url.removeprefix(settings.STATIC_URL)), url


@pytest.mark.django_db
def test_openapi_lists_every_call() -> None:
    response = Client().get("/api/v1/openapi.json")
    assert response.status_code == 200
    schema = json.loads(response.content)
    listed = {(method, path.removeprefix("/api/v1")) for path, methods in schema["paths"].items() for method in methods}
    assert listed >= DOCUMENTED
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation["tags"], f"{method} {path}"
            assert operation["security"], f"{method} {path}"
            named = set(re.findall(r"{(\w+)}", path))
            assert named == {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
    launch = schema["components"]["schemas"]["RunIn"]
    assert set(launch["properties"]) == {"agent", "task", "mode", "limits", "task_type", "metadata"}


@pytest.mark.django_db
def test_what_holds_for_every_call_is_said_once() -> None:
    about = json.loads(Client().get("/api/v1/openapi.json").content)["info"]["description"]
    assert f"{CALLS_A_MINUTE:,} calls in a minute" in about
    for name in ("Authorization", "application/problem+json", "Retry-After", "cursor", "Idempotency-Key"):
        assert name in about


@pytest.mark.django_db
def test_openapi_says_what_errors_each_call_can_give() -> None:
    schema = json.loads(Client().get("/api/v1/openapi.json").content)
    parts = schema["components"]
    errors: dict[str, set[int]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            given = {int(status): answer for status, answer in operation["responses"].items() if int(status) >= 400}
            errors[f"{method} {path.removeprefix('/api/v1')}"] = set(given)
            for status, answer in given.items():
                meant = parts["responses"][answer["$ref"].removeprefix("#/components/responses/")]
                assert list(meant["content"]) == ["application/problem+json"]
                assert parts["schemas"]["Problem"]["required"] == list(json.loads(problem(status, "why").content))
            keys = [each for each in operation.get("parameters", []) if each["name"] == "Idempotency-Key"]
            assert len(keys) == (method == "post"), path
    always = {401, 403, 429}
    assert all(always <= each for each in errors.values())
    assert errors["get /tools"] == always
    assert errors["get /runs"] == {*always, 422}
    assert errors["get /runs/{run_id}"] == {*always, 404}
    assert errors["put /agents/{slug}"] == {*always, 400, 404, 422}
    assert errors["post /runs/{run_id}/cancel"] == {*always, 404, 409, 422}
    assert errors["post /approvals/{batch_id}/decisions"] == {*always, 400, 404, 409, 422}


@pytest.mark.parametrize("text", ["plain", "ä \u202e \U0001f600", "half a pair \ud83d"])
def test_answers_are_json_whatever_text_is_in_them(rf: RequestFactory, text: str) -> None:
    written = Compact().render(rf.get("/"), {"text": text}, response_status=200)
    assert json.loads(written) == {"text": text}
