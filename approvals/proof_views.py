"""Evidence of one action, the team's audit log, and how reviewing goes. Reading only."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from itertools import islice
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts import receipts
from accounts.access import Right, get, rows
from accounts.http import HttpRequest
from accounts.models import Receipt
from approvals import evidence, inbox, measures, presenter
from approvals.models import Verdict
from runs.models import Action

PAGE = 100
MOST_LINES = 100_000
PERIODS = ("7", "30", "90")
USUAL_DAYS = 30


@never_cache
@require_safe
def action_page(request: HttpRequest, action_id: uuid.UUID) -> HttpResponse:
    """What the approver saw, who saw and decided when, what came of it, and the receipts that prove it."""
    found = Action.objects.select_related("run__agent_version", "run__agent", "run__owner", "batch", "supersedes")
    action = get(request.access, found, action_id)
    written = evidence.receipts_of(action)
    if request.GET.get("format") == "jsonl":
        return _lines(written, f"action-{action.id}.jsonl")
    seen = [receipt for receipt in written if receipt.kind == evidence.VIEWED]
    context = {
        "action": action,
        "shown": presenter.view_action(action, action.run, request.access),
        "agent": action.run.agent_version.definition.get("name") or action.run.agent.slug,
        "problems": evidence.verify_action(action),
        "seen": seen,
        "said": [(each, inbox.PAST[Verdict(each.verdict)]) for each in action.decisions.select_related("actor")],
        "successor": Action.objects.filter(supersedes=action).first(),
        "receipts": written,
    }
    return render(request, "approvals/evidence.html", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def log_page(request: HttpRequest) -> HttpResponse:
    """The team's receipts, newest first. A POST checks them all, which takes a while in a long history."""
    request.access.require(Right.MANAGE)
    kind, before = request.GET.get("kind", ""), request.GET.get("before", "")
    found = rows(request.access, Receipt).order_by("-seq")
    if kind:
        found = found.filter(kind__startswith=kind)
    if before.isdecimal() and len(before) < 18:
        found = found.filter(seq__lt=int(before))
    page = list(found[: PAGE + 1])
    context: dict[str, Any] = {
        "receipts": page[:PAGE],
        "next": page[PAGE - 1].seq if len(page) > PAGE else None,
        "kind": kind,
        "kinds": (
            ("", "All"),
            ("action.", "Actions"),
            ("decision.", "Decisions"),
            ("batch.", "Views"),
            ("run.", "Runs"),
        ),
        "head": request.access.team.receipts_hash,
        "count": request.access.team.receipts_seq,
    }
    if request.method == "POST":
        context |= {"checked_at": timezone.now(), "problems": evidence.verify(request.access.team)}
    return render(request, "approvals/log.html", context)


@never_cache
@require_safe
def export(request: HttpRequest) -> HttpResponse:
    """The chain as JSON lines, oldest first. A longer one than fits an answer is for the command `export_receipts`."""
    request.access.require(Right.MANAGE)
    team = request.access.team
    return _lines(islice(receipts.in_order(team.id), MOST_LINES), f"receipts-{team.slug}.jsonl")


@never_cache
@require_safe
def measures_page(request: HttpRequest) -> HttpResponse:
    """How reviewing goes, for admins. An unknown period is the usual one."""
    request.access.require(Right.MANAGE)
    days = int(request.GET["days"]) if request.GET.get("days") in PERIODS else USUAL_DAYS
    found = measures.measure(request.access, timezone.now() - dt.timedelta(days=days))
    periods = [(int(each), int(each) == days) for each in PERIODS]
    return render(request, "approvals/measures.html", {"measures": found, "days": days, "periods": periods})


def _lines(found: Iterable[Receipt], name: str) -> HttpResponse:
    text = "".join(f"{receipts.as_json(receipt)}\n" for receipt in found)
    response = HttpResponse(text, content_type="application/x-ndjson; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response
