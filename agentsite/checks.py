"""System checks of the environment: a wrong setting is named before it does harm, with the way to put it right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from traces import otlp_headers

REDIS_SCHEMES = {"redis", "rediss", "unix"}
EMAIL_SCHEMES = {"smtp", "smtps", "smtp+tls", "console", "file"}
MODEL_FEATURES = {"strict", "temperature"}
LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "[::1]", ".localhost"}


@checks.register()
def check_environment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    return [*worker_counts(), *data_directory(), *addresses(), *exposure(), *model()]


def worker_counts() -> list[checks.CheckMessage]:
    numbers = {"E001": "AGENTSITE_WORKERS", "E002": "AGENTSITE_CONCURRENCY"}
    return [
        checks.Error(
            f"{name} is {getattr(settings, name)}.", hint="Give a whole number of 1 or more.", id=f"agentsite.{number}"
        )
        for number, name in numbers.items()
        if getattr(settings, name) < 1
    ]


def data_directory() -> list[checks.CheckMessage]:
    if settings.DATA_DIR.is_dir() and os.access(settings.DATA_DIR, os.W_OK | os.X_OK):
        return []
    return [
        checks.Error(
            f"The data directory {settings.DATA_DIR} cannot be written.",
            hint="Point AGENTSITE_DATA_DIR at a directory of the user who runs agentsite.",
            id="agentsite.E003",
        )
    ]


def addresses() -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    if urlsplit(settings.REDIS_URL).scheme not in REDIS_SCHEMES:
        hint = "Use redis://HOST:PORT/DB, rediss://… or unix:///PATH."
        found.append(checks.Error("REDIS_URL is not the address of a Redis.", hint=hint, id="agentsite.E004"))
    base_url = urlsplit(settings.ANTHROPIC_BASE_URL)
    if settings.ANTHROPIC_BASE_URL and not (base_url.scheme in {"http", "https"} and base_url.netloc):
        hint = "Use http://HOST[:PORT] or https://HOST, without /v1: the SDK adds it."
        found.append(checks.Error("ANTHROPIC_BASE_URL is not a web address.", hint=hint, id="agentsite.E005"))
    elif base_url.path.rstrip("/").endswith("/v1"):
        hint = "Leave /v1 out: the SDK adds it."
        found.append(checks.Warning("ANTHROPIC_BASE_URL ends in /v1.", hint=hint, id="agentsite.W001"))
    if settings.EMAIL_URL and urlsplit(settings.EMAIL_URL).scheme not in EMAIL_SCHEMES:
        hint = f"Use one of {', '.join(f'{scheme}://' for scheme in sorted(EMAIL_SCHEMES))}."
        found.append(checks.Error("EMAIL_URL has an unknown scheme.", hint=hint, id="agentsite.E006"))
    collector = urlsplit(settings.OTEL_EXPORTER_OTLP_ENDPOINT)
    if settings.OTEL_EXPORTER_OTLP_ENDPOINT and collector.scheme not in {"http", "https"}:
        hint = "Use http://HOST:4318 or https://…"
        found.append(checks.Error("OTEL_EXPORTER_OTLP_ENDPOINT is not a web address.", hint=hint, id="agentsite.E007"))
    try:
        otlp_headers.read(settings.OTEL_EXPORTER_OTLP_HEADERS)
    except otlp_headers.BadHeaders as error:
        hint = "Use name=value,name=value; a comma or a blank within a value is written %2C or %20."
        found.append(checks.Error(f"OTEL_EXPORTER_OTLP_HEADERS: {error}", hint=hint, id="agentsite.E009"))
    return found


def exposure() -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    if "*" in settings.ALLOWED_HOSTS:
        hint = "Name the hosts people use: a forged Host header then gets no answer."
        found.append(checks.Warning("ALLOWED_HOSTS lets every host name through.", hint=hint, id="agentsite.W002"))
    if settings.AGENTSITE_ALLOW_STDIO_SERVERS and not set(settings.ALLOWED_HOSTS) <= LOOPBACK_HOSTS:
        hint = "Unset AGENTSITE_ALLOW_STDIO_SERVERS unless every admin may run any program as this user."
        found.append(
            checks.Warning(
                "Admins of a site others can reach may start programs on it.", hint=hint, id="agentsite.W003"
            )
        )
    return found


def model() -> list[checks.CheckMessage]:
    unknown = sorted(settings.ANTHROPIC_FEATURES - MODEL_FEATURES)
    if unknown:
        hint = f"Use some of {', '.join(sorted(MODEL_FEATURES))}, with commas between them."
        what = f"ANTHROPIC_FEATURES names {unknown[0]!r}, which is no feature."
        return [checks.Error(what, hint=hint, id="agentsite.E008")]
    configured = settings.ANTHROPIC_API_KEY or settings.ANTHROPIC_BASE_URL
    if settings.AGENTSITE_SIMULATED_MODEL and configured:
        hint = "Unset AGENTSITE_SIMULATED_MODEL to use the configured model."
        return [
            checks.Warning(
                "A real model is configured, but the simulated one is forced.", hint=hint, id="agentsite.W004"
            )
        ]
    return []
