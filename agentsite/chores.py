"""What a worker process does beside its tasks: the pulse of `runs`, with the chores of the rooms above it."""

from __future__ import annotations

import gc
import threading

from approvals import delivery, notices, reconcile
from approvals.escalation import climb
from approvals.expire import expire_due
from runs import documents, live, slots, staleness, statistics, tasks, worker
from traces.alert_sender import send_due
from traces.alerts import look_at_all
from traces.otel_export import export_due
from traces.retention import prune_by_teams
from traces.rollup import roll_due

WARM_UP_AFTER_S = 2.0


def start() -> None:
    live.publish_aside()
    slots.use_slots()
    worker.start(
        chores=[
            (5, expire_due),
            (5, climb),
            (2, notices.gather),
            (10, documents.Upkeep()),
        ],
        errands=[
            (2, delivery.deliver_due),
            (5, reconcile.ask_due),
            (5, send_due),
            (5, export_due),
            (15, staleness.check_due),
            (10, roll_due),
            (60, look_at_all),
            (3_600, statistics.refresh),
            (86_400, prune_by_teams),
        ],
    )
    # So that the first run does not wait for the imports either; not before web is up, which needs the processor more.
    warming = threading.Timer(WARM_UP_AFTER_S, warm_up)
    warming.daemon = True
    warming.start()


def warm_up() -> None:
    """Imports what the first run needs. All of that stays to the end: a full collection that looks it through each time
    holds every run up for 0.1 to 0.2 s."""
    tasks.worker_ports()
    gc.collect()
    gc.freeze()
