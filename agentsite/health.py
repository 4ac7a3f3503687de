"""Is it alive, and can it do its work? Public, never cached, and quick even when what they ask about is gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import redis
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError, connection
from django.db.models import Max
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from redis.backoff import NoBackoff
from redis.retry import Retry

from runs.models import WorkerHeartbeat

OLDEST_HEARTBEAT = timedelta(seconds=15)
REDIS_TIMEOUT_SECONDS = 0.5


def database_problem() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return "The database does not answer."
    return ""


def redis_problem() -> str:
    try:
        client = redis.Redis.from_url(
            settings.REDIS_URL,
            socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            socket_timeout=REDIS_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        with client:
            client.ping()
    except (redis.RedisError, OSError, ValueError):
        return "Redis does not answer."
    return ""


def worker_problem() -> str:
    try:
        latest = WorkerHeartbeat.objects.aggregate(latest=Max("at"))["latest"]
    except DatabaseError:
        return "The workers' heartbeats cannot be read."
    if latest is None:
        return "No worker has ever reported."
    age = timezone.now() - latest
    return f"No worker has reported for {age.total_seconds():.0f} seconds." if age > OLDEST_HEARTBEAT else ""


CHECKS: dict[str, Callable[[], str]] = {
    "database": database_problem,
    "redis": redis_problem,
    "worker": worker_problem,
}


@login_not_required
@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain; charset=utf-8")


@login_not_required
@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """What is wrong is named, but not where it runs: anybody may ask."""
    problems = {name: problem for name, check in CHECKS.items() if (problem := check())}
    if not problems:
        return JsonResponse({"status": "ready", "checks": dict.fromkeys(CHECKS, "ok")})
    response = JsonResponse(
        {
            "type": "about:blank",
            "title": "Not ready",
            "status": 503,
            "detail": " ".join(problems.values()),
            "errors": [{"field": name, "message": problem} for name, problem in problems.items()],
            "checks": {name: "failed" if name in problems else "ok" for name in CHECKS},
        },
        status=503,
        content_type="application/problem+json",
    )
    # Asked every few seconds by whoever watches: what is away says so in its own log, once.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response
