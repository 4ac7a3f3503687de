"""HTTP to tool servers: only to addresses that are allowed, and every failure as an answer to the one request it hit.

The MCP SDK lets a network error in one request tear down the whole session, other calls in flight included. Here such
an error becomes a JSON-RPC error in the response, with a code that says whether the server can have acted.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Sequence

import anyio
import httpx2

from runs.engine.types import JsonObject

# Codes of our own, outside the ranges of JSON-RPC and MCP.
NOT_SENT = -39001  # the server can't have acted, and a new connection may help
REFUSED = -39002  # the server can't have acted, and trying again won't help
LOST = -39003  # whether the server acted is not known

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Instance metadata that is not link-local: AWS over IPv6, Alibaba, Azure's wire server, Oracle.
_METADATA = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))


class AddressRefused(Exception):
    """The address is none that agentsite talks to."""


def check_address(text: str, *, allow_private: bool) -> None:
    """Raises `AddressRefused`. Link-local, metadata and multicast never pass; private and loopback if allowed."""
    address = _embedded(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA:
        raise AddressRefused(f"{text} is a link-local, metadata or multicast address, which is never allowed")
    if not address.is_global and not allow_private:
        raise AddressRefused(f"{text} is a private address, which this installation does not allow")


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class PinnedTransport(httpx2.AsyncBaseTransport):
    """Connects to the very addresses that were checked, so that a name can't change its mind in between.

    Raises `AddressRefused` beside what the inner transport raises.
    """

    def __init__(self, *, allow_private: bool, inner: httpx2.AsyncBaseTransport | None = None) -> None:
        self._allow_private = allow_private
        self._inner = inner or httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._first_that_connects(request, await self._addresses(request.url))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _addresses(self, url: httpx2.URL) -> Sequence[str]:
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await anyio.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            check_address(address, allow_private=self._allow_private)
        return addresses

    async def _first_that_connects(self, request: httpx2.Request, addresses: Sequence[str]) -> httpx2.Response:
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_pinned(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_pinned(request, addresses[-1]))


class GuardedTransport(PinnedTransport):
    """For MCP: every failure is an answer to the one request that it hit."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await super().handle_async_request(request)
        except AddressRefused as refused:
            return _failure(request, 403, REFUSED, str(refused))
        except (OSError, httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            return _failure(request, 503, NOT_SENT, f"could not connect to {request.url.host}: {_words(error)}")
        except httpx2.TransportError as error:
            return _failure(request, 502, LOST, f"the connection to {request.url.host} broke: {_words(error)}")
        return await _translated(request, response)


def _pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    """The same request to one address; the Host header and the certificate's name stay those of the URL."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


async def _translated(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    """A response to a message that isn't MCP, as an MCP error; every other response as it is."""
    status, content_type = response.status_code, response.headers.get("content-type", "").lower()
    if request.method != "POST" or response.has_redirect_location:
        return response
    failure: tuple[int, str] | None = None
    if status in (401, 403):
        failure = REFUSED, f"the server refuses access (HTTP {status})"
    elif status == 404 and "mcp-session-id" in request.headers:
        failure = NOT_SENT, "the server has ended the session"
    elif status >= 400 and not content_type.startswith("application/json"):
        failure = (LOST if status >= 500 else REFUSED), f"the server answered with HTTP {status}"
    elif status == 200 and not content_type.startswith(("application/json", "text/event-stream")):
        failure = LOST, f"the server answered with {content_type or 'no content type'}, which is not MCP"
    if failure is None:
        return response
    await response.aclose()
    return _failure(request, max(status, 400), *failure)


def _failure(request: httpx2.Request, status: int, code: int, message: str) -> httpx2.Response:
    body: JsonObject = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    headers = {"content-type": "application/json"}
    return httpx2.Response(status, headers=headers, content=json.dumps(body).encode(), request=request)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
