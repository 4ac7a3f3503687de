"""What a dry run would have done. It is read here; nothing on this page changes anything."""

from __future__ import annotations

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.access import rows
from accounts.http import HttpRequest
from runs import page as pages
from runs import proposals
from runs.engine.types import Mode
from runs.models import Action


@require_safe
def page(request: HttpRequest, run_id: str) -> HttpResponse:
    run = pages.load(request.access, run_id)
    if run.mode != Mode.DRY_RUN:
        raise Http404("Only a dry run has a report.")
    actions = rows(request.access, Action).filter(run=run).order_by("position", "created_at", "id")
    proposed = [proposals.proposal(action) for action in actions]
    alone = sum(each.needed == 0 for each in proposed)
    context = {
        "run": run,
        "proposals": proposed,
        "alone": alone,
        "asking": len(proposed) - alone,
        "final": sum(each.irreversible for each in proposed),
    }
    return render(request, "runs/report.html", context)
