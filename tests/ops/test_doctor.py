from __future__ import annotations

import io
import json

import pytest
from django.core.management import call_command
from django.utils import timezone
from pytest_django import Settings

from runs.models import WorkerHeartbeat

pytestmark = pytest.mark.django_db


def doctor(*args: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("doctor", *args, stdout=out)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


def outcomes(text: str) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in json.loads(text)["checks"]}


def test_everything_required_is_there() -> None:
    WorkerHeartbeat.objects.create(worker="worker1@here", at=timezone.now())

    code, text = doctor("--json")

    assert code == 0, text
    assert json.loads(text)["ok"] is True
    found = outcomes(text)
    assert {found[name] for name in ("python", "database", "redis", "worker", "disk", "secret key")} == {"ok"}
    assert found["model"] == "warning", "a simulated model is worth knowing"


def test_without_a_worker_it_fails_and_names_the_fix() -> None:
    code, text = doctor()

    assert code == 1
    assert "missing  worker" in text
    assert "fix: Start it with `make run`." in text


@pytest.mark.parametrize(
    ("name", "value", "check", "outcome"),
    [
        ("REDIS_URL", "redis://127.0.0.1:1/0", "redis", "missing"),
        ("SECRET_KEY", "short", "secret key", "missing"),
        ("ALLOWED_HOSTS", ["*"], "allowed hosts", "warning"),
        ("AGENTSITE_ALLOW_STDIO_SERVERS", True, "stdio servers", "warning"),
        ("AGENTSITE_WORKERS", 0, "agentsite.E001", "missing"),
    ],
)
def test_what_is_misconfigured_is_named(settings: Settings, name: str, value: object, check: str, outcome: str) -> None:
    setattr(settings, name, value)

    _, text = doctor("--json")

    assert outcomes(text)[check] == outcome
