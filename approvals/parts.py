"""A large batch, a part at a time: only what is shown is decided."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.db.models import Q, QuerySet

from approvals.inbox import REPLACED, with_actions
from runs.engine.types import WAITING_ACTIONS
from runs.models import Action, Batch

PART = 50  # actions of a batch on its page
OPEN = frozenset(WAITING_ACTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which of a batch's actions stand on its page: at most `PART`, from the place `first` on, of `total`."""

    first: int
    total: int

    @property
    def following(self) -> int:
        return self.first + PART

    @property
    def left(self) -> int:
        return max(0, self.total - self.following)

    @property
    def before(self) -> int:
        return max(0, self.first - PART)


def part_of(
    batch_id: uuid.UUID, first: int | None = None, *, holding: uuid.UUID | None = None
) -> tuple[Part, QuerySet[Batch]]:
    """The part of a batch from a place on, the one that holds an action, or the one with the first action that waits;
    and the batch to be read with it."""
    current = Action.objects.filter(batch_id=batch_id).exclude(REPLACED).order_by("position", "created_at")
    found = list(current.values_list("id", "status"))
    if first is None or holding is not None:
        wanted = (n for n, (action, status) in enumerate(found) if (action == holding if holding else status in OPEN))
        first = next(wanted, 0) // PART * PART
    ids = [action for action, _ in found[first : first + PART]]
    return Part(first=first, total=len(found)), with_actions(Batch.objects.all(), Q(id__in=ids))
