"""Sends runs that have ended to an OpenTelemetry collector, over OTLP/HTTP as JSON.

From a worker's errand, after the run: a collector that is away fails nothing, and is tried again for a day.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator
from typing import Any, Final

import httpx2
from django.conf import settings
from django.db.models import F
from django.utils import timezone

from runs.models import Run
from traces import otel, otlp_headers
from traces.models import SpanExport

logger = logging.getLogger(__name__)
WITHIN: Final = dt.timedelta(days=1)  # an endpoint that is set today does not get the history
AT_ONCE: Final = 50  # runs
SPANS_AT_ONCE: Final = 500
TIMEOUT_S: Final = 10.0
MOST_TRIES: Final = 12


def export_due() -> int:
    """The errand. Gives how many runs were sent; does nothing without an endpoint."""
    if not settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        return 0
    now = timezone.now()
    ended = Run.objects.filter(ended_at__gte=now - WITHIN)
    new = ended.filter(span_export__isnull=True).order_by("ended_at").values_list("id", flat=True)
    rows = [SpanExport(run_id=each, due_at=now) for each in new[:AT_ONCE]]
    SpanExport.objects.bulk_create(rows, ignore_conflicts=True)
    due = SpanExport.objects.filter(due_at__lte=now).order_by("due_at")[:AT_ONCE]
    return sum(_export(row, now) for row in due)


def _export(row: SpanExport, now: dt.datetime) -> bool:
    """Claimed by a conditional UPDATE that sets the next try; given up after the last of them."""
    again = now + min(dt.timedelta(seconds=10 * 2**row.attempts), dt.timedelta(hours=3))
    claim = SpanExport.objects.filter(id=row.id, due_at=row.due_at, attempts=row.attempts)
    next_try = None if row.attempts + 1 >= MOST_TRIES else again
    if claim.update(attempts=F("attempts") + 1, due_at=next_try) != 1:
        return False
    run = Run.objects.select_related("agent", "agent_version").get(id=row.run_id)
    try:
        for part in parts(otel.otlp(run, run.steps.select_related("payload").order_by("seq"))):
            _post(part)
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL, otlp_headers.BadHeaders) as error:
        # No text of an error: it may hold what was sent, and the headers are secrets.
        what = error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else type(error).__name__
        logger.warning("Run %s could not be sent to the collector: %s", run.id, what)
        return False
    SpanExport.objects.filter(id=row.id).update(due_at=None, sent_at=timezone.now())
    return True


def parts(trace: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same trace in requests of a bearable size."""
    resource = trace["resourceSpans"][0]
    scoped = resource["scopeSpans"][0]
    for at in range(0, len(scoped["spans"]), SPANS_AT_ONCE):
        some = {**scoped, "spans": scoped["spans"][at : at + SPANS_AT_ONCE]}
        yield {"resourceSpans": [{**resource, "scopeSpans": [some]}]}


def _post(part: dict[str, Any]) -> None:
    url = f"{settings.OTEL_EXPORTER_OTLP_ENDPOINT.rstrip('/')}/v1/traces"
    body = json.dumps(part, ensure_ascii=False).encode()
    given = otlp_headers.read(settings.OTEL_EXPORTER_OTLP_HEADERS)
    headers = {"user-agent": "agentsite", **given, "content-type": "application/json"}
    with httpx2.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        client.post(url, content=body, headers=headers).raise_for_status()
