"""Static files under ASGI, at addresses that change with their content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # whitenoise has no types
    """Answers with the whole file at once: ours are small, and Django warns of a file that is read in pieces there."""

    def immutable_file_test(self, path: str, url: str) -> bool:
        """Files of packages change without ours: browsers ask for those again."""
        return Path(path).is_relative_to(settings.BASE_DIR / "static")

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        found = static_file.get_response(request.method, request.META)
        body = b""
        if found.file is not None:
            with found.file:
                body = found.file.read()
        response = HttpResponse(body, status=int(found.status), headers=dict(found.headers))
        if "Content-Type" not in dict(found.headers):
            del response["Content-Type"]
        return response
