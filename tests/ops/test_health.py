from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from runs.models import WorkerHeartbeat

pytestmark = pytest.mark.django_db


def beat(seconds_ago: float = 0) -> None:
    WorkerHeartbeat.objects.create(worker="worker1@here", at=timezone.now() - timedelta(seconds=seconds_ago))


def test_healthz_says_that_the_process_lives(client: Client) -> None:
    response = client.get("/healthz")

    assert (response.status_code, response.content) == (200, b"ok\n")
    assert "no-store" in response["Cache-Control"]


def test_readyz_with_everything_there(client: Client) -> None:
    beat()

    response = client.get("/readyz")

    assert response.status_code == 200
    assert response.json() == {"status": "ready", "checks": {"database": "ok", "redis": "ok", "worker": "ok"}}
    assert "no-store" in response["Cache-Control"]


@pytest.mark.parametrize("seconds_ago", [None, 16])
def test_readyz_without_a_worker(client: Client, seconds_ago: float | None) -> None:
    if seconds_ago is not None:
        beat(seconds_ago)

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["checks"] == {"database": "ok", "redis": "ok", "worker": "failed"}
    assert [error["field"] for error in response.json()["errors"]] == ["worker"]


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "redis://:s3cret-of-ours@127.0.0.1:1/0", "unix:///nonexistent/redis.sock"]
)
def test_readyz_without_redis_is_quick_and_tells_no_secret(client: Client, settings: Settings, url: str) -> None:
    beat()
    client.get("/healthz")  # the first page of a process waits for all of them to be imported
    settings.REDIS_URL = url
    begun = time.monotonic()

    response = client.get("/readyz")

    assert time.monotonic() - begun < 2
    assert response.status_code == 503
    assert response.json()["checks"] == {"database": "ok", "redis": "failed", "worker": "ok"}
    assert b"s3cret" not in response.content
    assert b"nonexistent" not in response.content


def test_readyz_without_a_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OperationalError("connection refused: password=s3cret")

    monkeypatch.setattr(connection, "cursor", broken)

    response = client.get("/readyz")

    assert response.status_code == 503
    assert response.json()["checks"]["database"] == "failed"
    assert b"s3cret" not in response.content


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_only_reading_is_allowed(client: Client, path: str) -> None:
    assert client.post(path).status_code == 405
