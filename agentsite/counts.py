"""What the frame counts and lists, from the apps it is composed of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.urls import reverse

from accounts.access import Access, rows
from agentsite import context
from approvals import inbox
from runs import lists
from runs.beneath import shown_status, with_delegating
from runs.models import Run

RECENT = 8


def register() -> None:
    context.COUNTERS.update({"approvals": inbox.open_count, "runs": lists.live_count})
    context.RECENT_RUNS[:] = [recent_runs]


def recent_runs(access: Access) -> Sequence[Mapping[str, Any]]:
    found = with_delegating(rows(access, Run)).only("id", "number", "task", "status").order_by("-number")[:RECENT]
    return [
        {
            "href": reverse("runs:live", args=[run.id]),
            "title": run.title,
            "ref": run.short_id,
            "status": shown_status(run.status, run.delegates),  # type: ignore[attr-defined]  # annotated
        }
        for run in found
    ]
