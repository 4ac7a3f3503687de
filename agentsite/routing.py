"""Where sockets go."""

from __future__ import annotations

from django.urls import path

from approvals.consumers import InboxConsumer
from runs.consumers import RunConsumer

websocket_urlpatterns = [
    path("ws/runs/<str:run_id>/", RunConsumer.as_asgi()),
    path("ws/inbox/", InboxConsumer.as_asgi()),
]
