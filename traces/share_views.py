"""Sharing a trace: making and revoking links on its page, and the page that such a link opens."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.http import HttpRequest
from runs.errors import Invalid
from traces import sharing, trace_page, views


@require_POST
@never_cache
def create(request: HttpRequest, run_id: uuid.UUID) -> HttpResponse:
    """The page again, with the link: it is shown this once."""
    shown: dict[str, Any] = {"open": True}
    status = 201
    try:
        share, token = sharing.create(request.access, run_id, request.POST.get("days", ""))
        shown |= {"made": share, "link": request.build_absolute_uri(reverse("traces:shared", args=[token]))}
    except Invalid as error:
        shown |= {"errors": error.errors}
        status = 422
    context = trace_page.page(request.access, run_id, seq=None, fold=True, whole="")
    if context is None:
        raise Http404("No such run.")
    context["sharing"] |= shown
    template = "traces/_share.html" if request.htmx else "traces/trace.html"
    return render(request, template, context, status=status)


@require_POST
def revoke(request: HttpRequest, run_id: uuid.UUID, share_id: uuid.UUID) -> HttpResponse:
    done = sharing.revoke(request.access, run_id, share_id)
    messages.success(request, "The link opens nothing any more." if done else "The link had ended already.")
    return HttpResponseRedirect(reverse("traces:trace", args=[run_id]))


# --- what a link opens -----------------------------------------------------------------------------------------------

View = Callable[..., HttpResponse]


def _for_members(view: View) -> View:
    """The link's row and right instead of the session's team. 404 for a link that is none, 410 for one that ended."""

    @wraps(view)
    @require_safe
    @never_cache
    @vary_on_headers("HX-Request")
    def answer(request: HttpRequest, token: str, **kwargs: Any) -> HttpResponse:
        try:
            opened = sharing.opened(request.user, token)
        except sharing.Gone as gone:
            return render(request, "traces/share_gone.html", {"share": gone.share}, status=410)
        return view(request, opened, **kwargs)

    return answer


@_for_members
def shared(request: HttpRequest, opened: sharing.Opened) -> HttpResponse:
    return _whole(request, opened, None)


@_for_members
def shared_step(request: HttpRequest, opened: sharing.Opened, seq: int) -> HttpResponse:
    if not views.asks_for_part(request):
        return _whole(request, opened, seq)
    whole = request.GET.get("whole", "")
    context = trace_page.pane(opened.access, opened.share.run_id, seq, whole=whole, base=_base(request))
    if context is None:
        raise Http404("This run has no such step.")
    return render(request, "traces/_detail.html", context | {"shared": opened.share})


@_for_members
def shared_rows(request: HttpRequest, opened: sharing.Opened) -> HttpResponse:
    window = views.window_of(request)
    context = trace_page.more(opened.access, opened.share.run_id, **window, base=_base(request))
    return render(request, "traces/_rows.html", context | {"shared": opened.share})


def _whole(request: HttpRequest, opened: sharing.Opened, seq: int | None) -> HttpResponse:
    wanted = views.page_of(request)
    context = trace_page.page(opened.access, opened.share.run_id, seq=seq, **wanted, base=_base(request))
    if context is None:
        raise Http404("This run has no such step.")
    return render(request, "traces/trace.html", context | {"shared": opened.share, "live": False})


def _base(request: HttpRequest) -> str:
    token = request.resolver_match.kwargs["token"] if request.resolver_match else ""
    return reverse("traces:shared", args=[token])
