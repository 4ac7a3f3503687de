"""Addresses of sockets as a whole: which there are, and what another one gets."""

from __future__ import annotations

import asyncio

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator

from agentsite.routing import websocket_urlpatterns


@pytest.mark.parametrize("address", ["/ws/", "/ws/nope/", "/ws/inbox", "/", "/runs/1/"])
def test_an_address_that_is_no_socket_is_refused(address: str) -> None:
    async def knock() -> bool:
        browser = WebsocketCommunicator(URLRouter(websocket_urlpatterns), address)
        accepted, _ = await browser.connect(3)
        return bool(accepted)

    assert asyncio.run(knock()) is False
