"""People's wishes go down the tree: what a run that delegates is told holds for the runs it has started."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from runs import lifecycle
from runs.models import Run
from runs.settled import below


def pause_below(run_id: uuid.UUID) -> list[uuid.UUID]:
    """Pauses what works below and remembers that this was why. Returns the changed runs. In the transaction of the
    pause itself."""
    return _each(run_id, lambda child: lifecycle.pause_with(child, run_id))


def resume_below(run_id: uuid.UUID) -> list[uuid.UUID]:
    """Resumes what was paused with this run; what a person paused by itself stays so."""
    ours = set(Run.objects.filter(paused_with=run_id).values_list("id", flat=True))
    return _each(run_id, lambda child: child in ours and lifecycle.resume(child))


def _each(run_id: uuid.UUID, change: Callable[[uuid.UUID], bool]) -> list[uuid.UUID]:
    alive = list(below(run_id))
    # In one order, so that two of these never wait for each other.
    list(Run.objects.select_for_update(no_key=True).filter(id__in=alive).order_by("id").values_list("id"))
    return [child for child in alive if change(child)]
