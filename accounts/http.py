from __future__ import annotations

import django.http
from django_htmx.middleware import HtmxDetails

from accounts.access import Access
from accounts.models import User


class HttpRequest(django.http.HttpRequest):
    """What a view behind the sign-in gets. Types only: the middlewares set the attributes."""

    user: User
    access: Access
    htmx: HtmxDetails
