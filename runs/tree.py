"""People's wishes go down the tree: what a run that delegates is told holds for the runs it has started."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from runs import audit, lifecycle, pausing
from runs.models import Action, Run
from runs.settled import below


def pause(run_id: uuid.UUID) -> list[uuid.UUID] | None:
    """Pauses it and what works below, and remembers that this was why. Returns the runs below that were changed, None
    when it can't be paused. In the transaction that holds the run's row, as `resume`."""
    if not lifecycle.request_pause(run_id):
        return None
    return _each(run_id, lambda child: lifecycle.pause_with(child, run_id))


def resume(run_id: uuid.UUID) -> list[uuid.UUID] | None:
    """With what was paused with this run; what a person paused by itself stays so. All rows are changed before the
    first receipt is written, for receipts hold the team's row."""
    postponed: list[Action] = []
    if not pausing.resume(run_id, postponed):
        return None
    ours = set(Run.objects.filter(paused_with=run_id).values_list("id", flat=True))
    changed = _each(run_id, lambda child: child in ours and pausing.resume(child, postponed))
    for action in postponed:
        audit.record(action, "action.postponed", starts_at=str(action.starts_at))
    return changed


def _each(run_id: uuid.UUID, change: Callable[[uuid.UUID], bool]) -> list[uuid.UUID]:
    alive = list(below(run_id))
    # In one order, so that two of these never wait for each other.
    list(Run.objects.select_for_update(no_key=True).filter(id__in=alive).order_by("id").values_list("id"))
    return [child for child in alive if change(child)]
