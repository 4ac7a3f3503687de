from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import run_checks
from pytest_django import Settings

from agentsite.settings import BASE_DIR


def ids() -> set[str]:
    return {str(message.id) for message in run_checks() if str(message.id).startswith("agentsite.")}


def test_the_tests_own_environment_is_clean() -> None:
    assert ids() == set()


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        ("E001", {"AGENTSITE_WORKERS": 0}),
        ("E002", {"AGENTSITE_CONCURRENCY": -1}),
        ("E003", {"DATA_DIR": Path("/nonexistent")}),
        ("E004", {"REDIS_URL": "http://127.0.0.1"}),
        ("E005", {"ANTHROPIC_BASE_URL": "localhost:11434", "AGENTSITE_SIMULATED_MODEL": False}),
        ("E006", {"EMAIL_URL": "pigeon://roof"}),
        ("E007", {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}),
        ("E009", {"OTEL_EXPORTER_OTLP_HEADERS": "authorization: Bearer x"}),
        ("E008", {"ANTHROPIC_FEATURES": frozenset({"strict", "telepathy"})}),
        ("W001", {"ANTHROPIC_BASE_URL": "http://localhost:8000/v1/", "AGENTSITE_SIMULATED_MODEL": False}),
        ("W002", {"ALLOWED_HOSTS": ["*"]}),
        ("W003", {"ALLOWED_HOSTS": ["agentsite.harborpine.example"], "AGENTSITE_ALLOW_STDIO_SERVERS": True}),
        ("W004", {"ANTHROPIC_API_KEY": "key", "AGENTSITE_SIMULATED_MODEL": True}),
    ],
)
def test_each_mistake_has_its_id(settings: Settings, number: str, changes: dict[str, object]) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)

    assert ids() == {f"agentsite.{number}"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("AGENTSITE_CONCURRENCY", "many", "AGENTSITE_CONCURRENCY is 'many'; it must be a whole number, 0 or more."),
        (
            "DATABASE_URL",
            "agents:secret@db",
            "DATABASE_URL can't be read; write postgres://USER:PASSWORD@HOST:PORT/NAME",
        ),
        ("DATABASE_URL", "postgres://agents:secret@db:port/agents", "DATABASE_URL can't be read"),
        ("EMAIL_URL", "smtp://agents:secret@mail:port", "EMAIL_URL can't be read; write smtp"),
    ],
)
def test_a_setting_that_cannot_be_read_is_one_line_not_a_traceback(
    tmp_path: Path, name: str, value: str, says: str
) -> None:
    environment = {**os.environ, "AGENTSITE_DATA_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "agentsite.settings"}
    done = subprocess.run(
        [sys.executable, "manage.py", "doctor"],
        env={**environment, name: value},
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"A setting is not right: {says}")
    assert "secret" not in line
