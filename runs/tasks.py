"""What workers do: claim a lease, build the ports, advance, then finish or park. Every rule is elsewhere."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from importlib import import_module
from types import ModuleType

from celery import shared_task
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from accounts import receipts
from runs import filtering, lifecycle, live, settled, slots
from runs.doorbell import ADVANCE, ring
from runs.engine import loop
from runs.engine.explain import explain
from runs.engine.filters import redact
from runs.engine.ports import LeaseLost
from runs.engine.types import Finished, Outcome, Parked, RunStatus, StopReason
from runs.leases import Lease, claimed
from runs.models import Run
from runs.storable import storable_text

logger = logging.getLogger(__name__)


@shared_task(name=ADVANCE)  # type: ignore[untyped-decorator]
def advance_run(run_id: str) -> None:
    with slots.held(), claimed(uuid.UUID(run_id)) as lease:
        if lease is None:
            return
        run = Run.objects.select_related("team", "agent", "agent_version").get(id=lease.run_id)
        live.ring(run.id, run.last_seq)
        try:
            outcome = loop.advance(worker_ports().run_spec(run), worker_ports().build_ports(run, lease))
        except LeaseLost:
            logger.warning("Run %s has gone to another worker", run.id)
            return
        except (OperationalError, InterfaceError):
            logger.exception("The database is away; run %s will be taken up again", run.id)
            return
        except Exception as error:
            logger.exception("Run %s failed inside agentsite", run.id)
            outcome = Finished(
                status=RunStatus.FAILED,
                stop_reason=StopReason.INTERNAL_ERROR,
                stop_detail=_what_failed(run, error),
            )
        conclude(run, lease, outcome)


def _what_failed(run: Run, error: Exception) -> str:
    """With the plan as the last step left it."""
    plan = Run.objects.values_list("plan", flat=True).get(id=run.id)
    detail = f"{type(error).__name__}, recorded steps are kept"
    return explain(StopReason.INTERNAL_ERROR, detail, plan, settled.signs_of(run))


def worker_ports() -> ModuleType:
    """`runs.ports`, imported when first needed: the SDKs behind it take seconds, and a worker is up without them."""
    return import_module("runs.ports")


def conclude(run: Run, lease: Lease, outcome: Outcome) -> None:
    """Stores how far the run got. Whoever waits for it is rung afterwards."""
    if isinstance(outcome, Finished):
        _finish(run, lease, outcome)
    else:
        _park(run, lease, outcome)
    live.ring(run.id, run.last_seq)
    live.ring_inbox(run.team_id)
    if run.parent_id is not None and isinstance(outcome, Finished) and lifecycle.wake(run.parent_id):
        ring(run.parent_id)


def _finish(run: Run, lease: Lease, end: Finished) -> None:
    with transaction.atomic():
        wanted = filtering.filters_for(run)
        detail = redact(storable_text(end.stop_detail), wanted)
        if not lifecycle.finish(run.id, lease.owner, end.status, end.stop_reason, detail, redact(end.result, wanted)):
            return
        if end.status is not RunStatus.DRY_RUN_READY:
            settled.withdraw(run.id, "The run ended before anybody decided.")
        receipts.append(
            run.team_id,
            f"run.{end.status}",
            actor="agentsite",
            subject_type="run",
            subject_id=run.id,
            payload={"stop_reason": end.stop_reason, "cost_usd": str(run.cost_usd)},
        )


def _park(run: Run, lease: Lease, parked: Parked) -> None:
    match parked.why:
        case "paused":
            # Between the wish and this line it may have been taken back, or have become a cancel: the next turn sees.
            again = not lifecycle.park_paused(run.id, lease.owner) and _requeue(run, lease, 0)
        case "retry":
            again = _requeue(run, lease, parked.retry_in_s or 0)
        case _:
            lifecycle.park_waiting(run.id, lease.owner)
            # The last verdict, or a cancel, may have come between the question and this line.
            again = not settled.cancel_if_wished(run.id) and lifecycle.wake(run.id)
    if again:
        ring(run.id)


def _requeue(run: Run, lease: Lease, seconds: float) -> bool:
    """Whether it may go on at once. Who wished to cancel meanwhile does not wait for the next try."""
    lifecycle.park_until(run.id, lease.owner, timezone.now() + dt.timedelta(seconds=seconds))
    return not settled.cancel_if_wished(run.id) and not seconds
