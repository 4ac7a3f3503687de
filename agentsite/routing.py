"""Where sockets go."""

from __future__ import annotations

from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import path, re_path

from approvals.consumers import InboxConsumer
from runs.consumers import RunConsumer


class Nowhere(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """An address that is no socket: refused, not a traceback in the log for whoever knocks."""

    async def connect(self) -> None:
        await self.close()


websocket_urlpatterns = [
    path("ws/runs/<str:run_id>/", RunConsumer.as_asgi()),
    path("ws/inbox/", InboxConsumer.as_asgi()),
    re_path(r"", Nowhere.as_asgi()),
]
