"""Sends runs that have ended to an OpenTelemetry collector, over OTLP/HTTP as JSON.

From a worker's errand, after the run: a collector that is away fails nothing, and is tried again for a day.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Final

import httpx2
from django.conf import settings
from django.db.models import F
from django.utils import timezone

from runs.models import Run
from traces import otel, otlp_headers
from traces.json_parts import Json
from traces.models import SpanExport

logger = logging.getLogger(__name__)
WITHIN: Final = dt.timedelta(days=1)  # an endpoint that is set today does not get the history
AT_ONCE: Final = 50  # runs
SPANS_AT_ONCE: Final = 500
TIMEOUT_S: Final = 10.0
SENDING: Final = dt.timedelta(minutes=10)  # until a worker that sends is taken for dead
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
    return sum(_export(row) for row in due)


def _export(row: SpanExport) -> bool:
    """Claimed by a conditional UPDATE for as long as sending may take: a crash meanwhile is tried again after it. Given
    up after the last try."""
    now = timezone.now()
    claim = SpanExport.objects.filter(id=row.id, due_at=row.due_at, attempts=row.attempts)
    is_last = row.attempts + 1 >= MOST_TRIES
    if claim.update(attempts=F("attempts") + 1, due_at=None if is_last else now + SENDING) != 1:
        return False
    run = Run.objects.select_related("agent", "agent_version").get(id=row.run_id)
    try:
        with _collector() as collector:
            for some in _parts(otel.spans(run)):
                _post(collector, otel.document(some))
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL, otlp_headers.BadHeaders) as error:
        # No text of an error: it may hold what was sent, and the headers are secrets.
        what = error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else type(error).__name__
        logger.warning("Run %s could not be sent to the collector: %s", run.id, what)
        again = timezone.now() + min(dt.timedelta(seconds=10 * 2**row.attempts), dt.timedelta(hours=3))
        SpanExport.objects.filter(id=row.id).update(due_at=None if is_last else again)
        return False
    SpanExport.objects.filter(id=row.id).update(due_at=None, sent_at=timezone.now())
    return True


def _parts(spans: Iterator[Json]) -> Iterator[list[Json]]:
    """Requests of a bearable size, and never more than one of them in memory."""
    while some := list(islice(spans, SPANS_AT_ONCE)):
        yield some


def _collector() -> httpx2.Client:
    given = otlp_headers.read(settings.OTEL_EXPORTER_OTLP_HEADERS)
    headers = {"user-agent": "agentsite", **given, "content-type": "application/json"}
    return httpx2.Client(headers=headers, timeout=TIMEOUT_S, trust_env=False)


def _post(collector: httpx2.Client, part: Json) -> None:
    url = f"{settings.OTEL_EXPORTER_OTLP_ENDPOINT.rstrip('/')}/v1/traces"
    collector.post(url, content=json.dumps(part, ensure_ascii=False).encode()).raise_for_status()
