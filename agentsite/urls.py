"""The pages, as CONTRACT lists them."""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.urls import include, path

from agentsite import counts
from agentsite.api import api
from agentsite.health import healthz, readyz

counts.register()  # here, because only what serves pages needs them

api_patterns, api_app, api_namespace = api.urls
for pattern in api_patterns:
    if pattern.callback is not None:
        # Every endpoint asks for a token itself; a redirect to the sign-in page would be no answer to a program.
        pattern.callback = login_not_required(pattern.callback)

urlpatterns = [
    path("", include("runs.urls")),
    path("approvals/", include("approvals.urls")),
    path("", include("traces.urls")),
    path("accounts/", include("accounts.urls")),
    path("accounts/", include("allauth.urls")),
    path("api/v1/", (api_patterns, api_app, api_namespace)),
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
]
