"""The pulse of a worker process: one thread that renews leases, reads people's wishes and sweeps up what was missed.

It needs the database only, so it goes on while the broker is away; nothing here is state that a crash could lose.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence

from django.conf import settings
from django.db import DatabaseError, close_old_connections
from django.db.models import Q
from django.utils import timezone

from runs import leases, lifecycle, settled, slots
from runs.doorbell import ring
from runs.engine.types import RunStatus
from runs.models import Batch, Run

logger = logging.getLogger(__name__)
TICK_S = 0.5
RING_AGAIN = dt.timedelta(seconds=5)
AT_ONCE = 500

Chore = tuple[float, Callable[[], object]]


def start(chores: Sequence[Chore] = (), errands: Sequence[Chore] = ()) -> threading.Thread:
    """Starts the thread. `chores` are (seconds between, function) of the rooms above this one.

    `errands` wait for a network: they have a thread of their own, because leases must be renewed meanwhile.
    """
    every: list[Chore] = [(TICK_S, leases.watch), (4, leases.renew), (4, leases.beat), (2, sweep), *chores]
    if errands:
        threading.Thread(target=_run, args=(errands,), name="errands", daemon=True).start()
    thread = threading.Thread(target=_run, args=(every,), name="pulse", daemon=True)
    thread.start()
    return thread


def sweep() -> None:
    """Rings for every run that could go on: due, lost by its worker, or decided while nobody was listening."""
    for run_id in leases.free_lost():
        logger.warning("Run %s lost its worker and is taken up again", run_id)
        ring(run_id)
    for run_id in _wakeable():
        lifecycle.wake(run_id)
    for run_id in Run.objects.filter(status=RunStatus.WAITING, wish="cancel").values_list("id", flat=True):
        settled.cancel_if_wished(run_id)
    now = timezone.now()
    due = Q(due_at__isnull=True) | Q(due_at__lte=now)
    unheard = Q(rung_at__isnull=True) | Q(rung_at__lte=now - RING_AGAIN)
    waiting = Run.objects.filter(due & unheard, status=RunStatus.QUEUED, created_at__lte=now - dt.timedelta(seconds=1))
    # More than there is room for would only lie in the broker, again and again: it still has the first ring.
    room = max(0, settings.AGENTSITE_CONCURRENCY - slots.runs_here())
    for run_id in waiting.order_by("created_at").values_list("id", flat=True)[:room]:
        ring(run_id)


def _wakeable() -> list[uuid.UUID]:
    asked = Batch.objects.filter(status="open", run__status=RunStatus.WAITING).values("run_id")
    delegating = Run.objects.filter(parent__isnull=False, status__in=lifecycle.ALIVE).values("parent_id")
    waiting = Run.objects.filter(status=RunStatus.WAITING).exclude(id__in=asked).exclude(id__in=delegating)
    return list(waiting.values_list("id", flat=True)[:AT_ONCE])


def _run(chores: Sequence[Chore]) -> None:
    next_at = dict.fromkeys(range(len(chores)), 0.0)
    while True:
        for index, (every, chore) in enumerate(chores):
            if time.monotonic() < next_at[index]:
                continue
            next_at[index] = time.monotonic() + every
            try:
                chore()
            except DatabaseError:
                logger.warning("The database is away; trying again")
                close_old_connections()
            except Exception:
                logger.exception("A chore of the worker failed")
        time.sleep(TICK_S / 2)
