"""Ringing the workers. A lost ring loses nothing: the sweeper rings for what the database says is due."""

from __future__ import annotations

import logging
import uuid

from celery import current_app
from django.utils import timezone
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from runs.models import Run

logger = logging.getLogger(__name__)
ADVANCE = "runs.advance"


def ring(run_id: uuid.UUID | str) -> None:
    """Asks any worker to advance the run. By name, so that web processes need not import what workers run."""
    try:
        current_app.send_task(ADVANCE, [str(run_id)])
    except (OperationalError, RedisError, OSError):
        logger.warning("The broker is away; run %s will be found by the sweeper", run_id)
        return
    Run.objects.filter(id=run_id).update(rung_at=timezone.now())
