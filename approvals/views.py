"""The inbox's pages. Every write is an ordinary POST; htmx only asks for a smaller answer to the same request."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpResponse, HttpResponseBadRequest
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import reswap, retarget

from accounts.access import Right, get
from accounts.http import HttpRequest
from accounts.receipts import ChainBroken
from approvals import editing, escalation, forms, handover, inbox, listing, parts, presenter, seen, viewing
from approvals.inbox import Line, Outcome, Result
from approvals.listing import Counts, Listed, Show
from approvals.models import Verdict
from approvals.paging import BadCursor, page
from approvals.parts import Part
from approvals.presenter import BatchView, Draft
from approvals.rows import RowView, view_row
from approvals.toasts import undo_toast
from approvals.undo import revoke
from runs import previews
from runs.engine.types import ActionStatus, JsonObject
from runs.errors import Conflict, Invalid
from runs.models import Action, Batch

DECIDED_PAGE = 50
CHIPS = {Show.MINE: "For me", Show.TWO_PERSON: "Two-person", Show.EXPIRING: "Expiring"}


@require_GET
@vary_on_headers("HX-Request")
def inbox_page(request: HttpRequest) -> HttpResponse:
    if request.GET.get("show") == "decided":
        return render(request, "approvals/decided.html", _decided(request))
    if request.htmx and request.GET.get("after") and not request.htmx.history_restore_request:
        return _more(request)
    context = _list(request)
    first = _view(request, context["views"][0].id)[0] if context["views"] else None
    if first is not None:
        viewing.note(request.access, get(request.access, Batch, first.id))
        seen.record(request.access, first.on_the_page)
    # On a phone the list comes first; elsewhere there is room for the batch that expires soonest.
    shown = {**context, **_people(request), "batch": first, "opened": False}
    return render(request, "approvals/inbox.html", shown)


@require_GET
@vary_on_headers("HX-Request")
def batch_page(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    viewing.note(request.access, get(request.access, Batch, batch_id))
    return _page(request, batch_id)


@require_POST
def decide(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    get(request.access, Batch, batch_id, right=Right.DECIDE)
    try:
        post = forms.read_post(request.POST)
    except ValueError:
        return HttpResponseBadRequest("This form is not one that the page shows. Nothing was decided.")
    lines = post.lines
    outcomes = []
    if lines:
        try:
            outcomes = inbox.decide(
                request.access, batch_id, post.version, lines, channel="web", execution=post.execution
            )
        except ChainBroken as broken:
            messages.error(request, str(broken))
            return _page(request, batch_id, status=503, drafts=post.drafts)
    refused = {outcome.action for outcome in outcomes if outcome.result is not Result.APPLIED}
    if not lines:
        messages.warning(request, "Nothing is selected, so nothing was decided.")
    elif not refused:
        messages.success(request, _summary(outcomes, lines))
    kept = {
        action: draft for action, draft in post.drafts.items() if action not in {o.action for o in outcomes} - refused
    }
    if not request.htmx and lines and not refused:
        return redirect("approvals:batch", batch_id)
    status = 422 if any(outcome.result is Result.INVALID for outcome in outcomes) else 200
    approved = {line.action for line in lines if line.verdict is Verdict.APPROVE} - refused
    return _page(request, batch_id, status=status, drafts=kept, outcomes=outcomes, approved=approved)


@require_GET
@vary_on_headers("HX-Request")
def whole(request: HttpRequest, batch_id: uuid.UUID, action_id: uuid.UUID) -> HttpResponse:
    """An action with all of its payload: into its card, or as a page of its own. That it was shown is recorded."""
    batch, _ = _load(request, batch_id, holding=action_id)
    action = next((each for each in batch.actions.all() if each.id == action_id), None)
    if action is None:
        raise Http404("No such action.")
    view = presenter.view_action(action, batch.run, request.access, whole=True)
    seen.record(request.access, [(action.id, action.digest)])
    page = "approvals/_whole.html" if request.htmx else "approvals/whole.html"
    return render(request, page, {"action": view, "batch_id": batch_id})


@require_POST
def undo(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    """Takes approvals back that have not begun; the same without scripts."""
    get(request.access, Batch, batch_id, right=Right.DECIDE)
    try:
        taken = forms.read_taken(request.POST)
    except ValueError:
        return HttpResponseBadRequest("This form is not one that the page shows. Nothing was changed.")
    outcomes = revoke(request.access, batch_id, taken, channel="web")
    back = sum(outcome.result is Result.APPLIED for outcome in outcomes)
    late = next((outcome.detail for outcome in outcomes if outcome.result is not Result.APPLIED), "")
    if back:
        words = "1 approval was" if back == 1 else f"{back} approvals were"
        messages.success(request, f"{words} taken back. Nothing of it has run.")
    if late or not outcomes:
        messages.warning(request, late or "There was nothing to take back.")
    if not request.htmx:
        return redirect("approvals:batch", batch_id)
    return _page(request, batch_id)


@require_POST
def extend(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    """As much time again, once."""
    try:
        escalation.extend(request.access, batch_id)
    except Conflict as error:
        messages.warning(request, error.detail)
    else:
        messages.success(request, "There is as much time again to decide.")
    if not request.htmx:
        return redirect("approvals:batch", batch_id)
    return _page(request, batch_id)


@require_POST
def hand_over(request: HttpRequest, batch_id: uuid.UUID) -> HttpResponse:
    """Asks somebody else. What can't be done is said at the field, with what was typed."""
    version = request.POST.get("shown", "")
    number = int(version) if version.isdecimal() and len(version) < 10 else None
    to, note = request.POST.get("to", ""), request.POST.get("hand_note", "")
    try:
        handed = handover.hand_over(request.access, batch_id, to, note, version=number)
    except Invalid as invalid:
        return _handing(request, batch_id, {"to": to, "note": note, "errors": invalid.errors})
    except Conflict as error:
        messages.warning(request, error.detail)
        return _page(request, batch_id, status=409, handing={"to": to, "note": note, "errors": {}})
    who = "You are" if handed.to == request.access.user else f"{handed.to.label} is"
    messages.success(request, f"{who} asked now.")
    if not request.htmx:
        return redirect("approvals:batch", batch_id)
    return _page(request, batch_id)


@require_http_methods(["GET", "HEAD", "POST"])
@vary_on_headers("HX-Request")
def edit(request: HttpRequest, batch_id: uuid.UUID, action_id: uuid.UUID) -> HttpResponse:
    batch = get(request.access, Batch, batch_id, right=Right.DECIDE)
    action = get(request.access, Action.objects.select_related("run"), action_id, batch=batch)
    spec = editing.tool_spec(request.access.team, action.tool)
    schema: JsonObject = spec.input_schema if spec else {}
    before = editing.editable_args(action)
    if action.status != ActionStatus.PENDING or before is None:
        messages.warning(request, "Only an action that waits for approval can be changed.")
        return redirect("approvals:batch", batch_id)
    if request.method != "POST":
        return _editing(request, action, forms.edit_fields(before, schema))
    return _save_edit(request, action, schema)


def _save_edit(request: HttpRequest, action: Action, schema: JsonObject) -> HttpResponse:
    before = editing.editable_args(action) or {}
    fields = forms.edit_fields(before, schema)
    args, typed, problems = forms.read_args(request.POST, fields)
    args = forms.unchanged(args, before)
    if not problems and args == action.args:
        return _card(request, action) if request.htmx else redirect("approvals:batch", action.batch_id)
    outcome = None
    if not problems:
        outcome = _decide_edit(request, action, args)
        if outcome.result is Result.APPLIED and outcome.superseded_by:
            new = get(request.access, Action, outcome.superseded_by)
            return _card(request, new) if request.htmx else redirect("approvals:batch", action.batch_id)
        if outcome.result is Result.APPLIED:
            return _card(request, action) if request.htmx else redirect("approvals:batch", action.batch_id)
        problems = list(outcome.errors) or [("", outcome.detail)]
    again = forms.edit_fields(before, schema, typed=typed, errors=problems)
    general = [message for path, message in problems if not any(path.split(".")[0] == each.name for each in again)]
    return _editing(request, action, again, general=general, status=422)


def _decide_edit(request: HttpRequest, action: Action, args: JsonObject) -> Outcome:
    shown = request.POST.get("digest", action.digest)
    version = request.POST.get("version", "")
    verdict = Verdict.ANSWER if action.kind == "question" else Verdict.EDIT
    line = Line(action=action.id, digest=shown, verdict=verdict, args=args)
    batch_id = action.batch_id or uuid.UUID(int=0)
    number = int(version) if version.isdecimal() and len(version) < 10 else 1
    try:
        return inbox.decide(request.access, batch_id, number, [line], channel="web")[0]
    except ChainBroken as broken:
        return Outcome(action=action.id, result=Result.INVALID, detail=str(broken))


# --- pages and fragments ---------------------------------------------------------------------------------------------


def _load(request: HttpRequest, batch_id: uuid.UUID, *, holding: uuid.UUID | None = None) -> tuple[Batch, Part]:
    """A batch with the part of it that is asked for, or that holds an action."""
    asked = request.POST.get("from") or request.GET.get("from") or ""
    first = int(asked) if asked.isdecimal() and len(asked) < 6 else None
    part, found = parts.part_of(batch_id, first, holding=holding)
    return get(request.access, found, batch_id), part


def _view(
    request: HttpRequest, batch_id: uuid.UUID, *, holding: uuid.UUID | None = None, **more: Any
) -> tuple[BatchView, RowView]:
    batch, part = _load(request, batch_id, holding=holding)
    view = presenter.view_batch(batch, request.access, part=part, **more)
    return view, view_row(batch) if part.total <= parts.PART else _row(request, batch_id)


def _page(
    request: HttpRequest,
    batch_id: uuid.UUID,
    *,
    status: int = 200,
    holding: uuid.UUID | None = None,
    drafts: Mapping[uuid.UUID, Draft] | None = None,
    outcomes: Iterable[Outcome] = (),
    approved: Collection[uuid.UUID] = (),
    **more: Any,
) -> HttpResponse:
    """The whole page, or for htmx the batch with its row and the counts, which go to their places by id."""
    view, row = _view(request, batch_id, holding=holding, drafts=drafts, outcomes=outcomes)
    seen.record(request.access, view.on_the_page)
    fragment = bool(request.htmx) and not request.htmx.history_restore_request
    shared = {"batch": view, **_people(request), "reasons": presenter.reasons(), "opened": True, **more}
    if fragment:
        counts = listing.counts(request.access)
        return render(
            request,
            "approvals/_batch_answer.html",
            {
                **shared,
                "row": row,
                "counts": counts,
                "count": presenter.nav_count(counts.mine),
                "is_fragment": True,
                "toast": undo_toast(view, approved),
            },
            status=status,
        )
    return render(request, "approvals/inbox.html", {**_list(request, row), **shared}, status=status)


def _people(request: HttpRequest) -> dict[str, Any]:
    """Whom a batch can be handed over to; read when the page shows it."""
    return {"candidates": handover.candidates(request.access), "me": request.access.user}


def _handing(request: HttpRequest, batch_id: uuid.UUID, typed: dict[str, Any]) -> HttpResponse:
    """The form for handing over with what was wrong in it; for htmx it alone, for cards may hold typed words."""
    if not request.htmx:
        return _page(request, batch_id, status=422, handing=typed)
    view, _ = _view(request, batch_id)
    context = {"batch": view, **_people(request), "handing": typed}
    answer = render(request, "approvals/_hand_over.html", context, status=422)
    return reswap(retarget(answer, "#hand-over"), "outerHTML")


def _card(request: HttpRequest, action: Action) -> HttpResponse:
    """One card alone, as it stands now, with what the change of it changes elsewhere."""
    view, row = _view(request, action.batch_id or uuid.UUID(int=0), holding=action.id)
    card = next((each for each in view.actions if each.id == action.id), None)
    if card is None:
        raise Http404("No such action.")
    seen.record(request.access, view.on_the_page)
    return render(
        request,
        "approvals/_card_answer.html",
        {"batch": view, "action": card, "row": row, "reasons": presenter.reasons()},
    )


def _editing(
    request: HttpRequest,
    action: Action,
    fields: list[forms.EditField],
    *,
    general: Iterable[str] = (),
    status: int = 200,
) -> HttpResponse:
    form: dict[str, Any] = {"editing": action.id, "fields": fields, "general_errors": list(general)}
    batch_id = action.batch_id or uuid.UUID(int=0)
    if not request.htmx or request.htmx.history_restore_request:
        return _page(request, batch_id, status=status, holding=action.id, **form)
    view, _ = _view(request, batch_id, holding=action.id)
    card = next(each for each in view.actions if each.id == action.id)
    context = {"batch": view, "action": card, "reasons": presenter.reasons(), **form}
    return render(request, "approvals/_action.html", context, status=status)


def _list(request: HttpRequest, opened: RowView | None = None) -> dict[str, Any]:
    """The left pane. A batch that is not on its first page, or no longer open, still has its row: nothing vanishes."""
    show = listing.read_show(request.GET.get("show", ""))
    found = _listed(request, show)
    views = [view_row(batch) for batch in found.batches]
    above = opened if opened is not None and all(view.id != opened.id for view in views) else None
    start = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    counts = listing.counts(request.access)
    return {
        "views": [above, *views] if above else views,
        "more_url": _more_url(found, show, above.id if above else None),
        "is_further": "after" in request.GET,
        "show": show,
        "counts": counts,
        "filters": _filters(counts, show),
        "today": inbox.today(request.access, start),
        "decided_today": [
            (said, previews.title_of(said.action)) for said in inbox.decided_since(request.access, start, 5)
        ],
        "newest": listing.newest(request.access),
        "reasons": presenter.reasons(),
    }


def _more(request: HttpRequest) -> HttpResponse:
    """The next page of the list, to go behind the one that stands there."""
    show, above = listing.read_show(request.GET.get("show", "")), _uuid(request.GET.get("above", ""))
    found = _listed(request, show, above)
    context = {"views": [view_row(batch) for batch in found.batches], "more_url": _more_url(found, show, above)}
    return render(request, "approvals/_rows.html", context)


def _listed(request: HttpRequest, show: Show, above: uuid.UUID | None = None) -> Listed:
    """The page that the address asks for; the first one for a link that was damaged."""
    try:
        return listing.listed(request.access, show, request.GET.get("after", ""), without=above)
    except BadCursor:
        return listing.listed(request.access, show, without=above)


def _more_url(found: Listed, show: Show, above: uuid.UUID | None) -> str:
    """`above`: the batch that stands above the list, and is not to come once more."""
    asked = {"after": found.following, "show": show.value, "above": above}
    query = urlencode({name: value for name, value in asked.items() if value})
    return f"{reverse('approvals:inbox')}?{query}" if found.following else ""


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _row(request: HttpRequest, batch_id: uuid.UUID) -> RowView:
    return view_row(get(request.access, inbox.with_rows(Batch.objects.all()), batch_id))


def _filters(counts: Counts, show: Show) -> list[dict[str, Any]]:
    base = reverse("approvals:inbox")
    return [
        {
            "key": key.value,
            "label": CHIPS[key],
            "count": number,
            "href": f"{base}?show={key}" if key != show else base,
            "current": key == show,
        }
        for key, number in counts.chips
    ]


def _decided(request: HttpRequest) -> dict[str, Any]:
    found = inbox.batches(request.access, "decided")
    try:
        batches, following = page(found, "decided", DECIDED_PAGE, request.GET.get("before", ""))
    except BadCursor:
        batches, following = page(found, "decided", DECIDED_PAGE)
    return {"views": [presenter.view_batch(batch, request.access) for batch in batches], "next": following}


def _summary(outcomes: Iterable[Outcome], lines: Iterable[Line]) -> str:
    """`2 approved, 1 rejected.`"""
    said = {line.action: inbox.PAST[line.verdict] for line in lines}
    words = ["waiting for a second person" if each.counts_only else said[each.action] for each in outcomes]
    terms = [f"{words.count(word)} {word}" for word in dict.fromkeys(words)]
    return f"{', '.join(terms)}."
