"""The gallery at an address, for tests only."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path


def gallery_context() -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC)
    return {
        "now": now,
        "later": now + dt.timedelta(minutes=41),
        "soon": now + dt.timedelta(minutes=27, seconds=18),
        "urgent": now + dt.timedelta(minutes=4, seconds=12),
        "past": now - dt.timedelta(minutes=1),
        "approvals": [{"by": "Marco Ruiz", "at": now}],
        "diff": [{"field": "preferred_contact", "now": "phone", "after": ""}],
        "email": "Hello Ines,\n\n\u202eyour kettle <b>",
    }


def gallery(request: HttpRequest) -> HttpResponse:
    access = SimpleNamespace(user=SimpleNamespace(label="Dana Okafor"), team=SimpleNamespace(name="Harbor & Pine"))
    request.access = access  # type: ignore[attr-defined]
    return render(request, "components/gallery.html", gallery_context())


gallery.login_required = False  # type: ignore[attr-defined]
urlpatterns = [path("approvals/", gallery)]
