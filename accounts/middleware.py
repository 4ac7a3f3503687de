from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils.functional import SimpleLazyObject

from accounts.access import NoTeam, access_for_session
from accounts.receipts import ChainBroken


class AccessMiddleware:
    """Sets `request.access`: an Access, looked up when it is first used, or None for somebody who isn't signed in."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        signed_in = request.user.is_authenticated
        access = SimpleLazyObject(lambda: access_for_session(request.user, request.session)) if signed_in else None
        request.access = access  # type: ignore[attr-defined]
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """What can happen to any page. One that keeps what was typed answers a broken chain itself."""
        if isinstance(exception, ChainBroken):
            return render(request, "503.html", {"message": str(exception)}, status=503)
        if not isinstance(exception, NoTeam):
            return None
        request.access = None  # type: ignore[attr-defined]  # the page must not ask again
        return render(request, "account/no_team.html", {"message": str(exception)}, status=403)
