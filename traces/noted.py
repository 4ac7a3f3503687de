"""What the trace page shows of people's notes: on the run as a whole, and on the step whose details are open."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, Final

from django.db.models import Count, Max, QuerySet
from django.http import Http404
from django.urls import reverse

from accounts.access import Access, Right, get, rows
from runs import noting
from runs.asked import Note
from runs.models import Run, Step

NEWEST: Final = 20
"""Notes that are shown of a run or a step before somebody asks for all."""


def on_run(access: Access, run: Run, *, whole: bool = False) -> dict[str, Any]:
    """The newest, or with `whole` all."""
    found = noting.of(access, run).filter(step__isnull=True)
    place = [run.id]
    urls = {"url": reverse("traces:notes", args=place), "add_url": reverse("traces:add_note", args=place)}
    return _shown(access, found, whole) | {"place": "run", "seq": None, **urls}


def on_step(access: Access, run: Run, seq: int, *, whole: bool = False) -> dict[str, Any]:
    if not rows(access, Step).filter(run=run, seq=seq).exists():
        raise Http404("This run has no such step.")
    place = [run.id, seq]
    found = noting.of(access, run).filter(step__seq=seq)
    urls = {"url": reverse("traces:step_notes", args=place), "add_url": reverse("traces:add_step_note", args=place)}
    return _shown(access, found, whole) | {"place": "step", "seq": seq, **urls}


def seq_of(access: Access, run_id: uuid.UUID, note_id: uuid.UUID) -> int | None:
    note = get(access, Note.objects.select_related("step"), note_id, run=get(access, Run, run_id))
    return note.step.seq if note.step else None


def counts(step_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, int]:
    """How many notes stand on each of these steps that has any."""
    found = Note.objects.filter(step__in=list(step_ids)).order_by().values_list("step_id")
    return {step_id: count for step_id, count in found.annotate(count=Count("id")) if step_id is not None}


def _shown(access: Access, found: QuerySet[Note], whole: bool) -> dict[str, Any]:
    seen = found.aggregate(count=Count("id"), created=Max("created_at"), edited=Max("edited_at"))
    moments = [moment for moment in (seen["created"], seen["edited"]) if moment]
    newest = found.reverse() if whole else found.reverse()[:NEWEST]
    listed = list(newest)[::-1]
    return {
        "list": [
            {
                "note": note,
                "mine": note.author_id == access.user.id and access.may(Right.LAUNCH),
                "may_delete": access.may(Right.MANAGE if note.author_id != access.user.id else Right.LAUNCH),
            }
            for note in listed
        ],
        "count": seen["count"],
        "earlier": seen["count"] - len(listed),
        "whole": whole and seen["count"] > NEWEST,
        "stamp": f"{seen['count']}-{max(moments).timestamp():.6f}" if moments else "0",
        "may_add": access.may(Right.LAUNCH),
        "typed": None,
        "open": False,
        "longest": noting.LONGEST,
    }
