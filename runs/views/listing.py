from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.http import HttpRequest
from runs import lists

PAGE = 50


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    show = request.GET.get("show", "")
    show = show if show in lists.SHOWS else ""
    before = request.GET.get("before", "")
    found = lists.shown(request.access, show)
    if before.isdecimal() and len(before) < 10:
        found = found.filter(number__lt=int(before))
    runs = lists.lines(found[: PAGE + 1])
    context = {
        "runs": runs[:PAGE],
        "older": runs[PAGE - 1].ref.removeprefix("R-") if len(runs) > PAGE else "",
        "show": show,
        "shows": list(lists.SHOWS.items()),
        "is_first_page": not before,
    }
    return render(request, "runs/list.html", context)
