"""`/api/v1`: authentication, limits, errors as problem details (RFC 9457). The endpoints belong to the apps."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from http import HTTPStatus
from typing import Any

import pydantic
from django.core.cache import cache
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.urls import URLPattern, URLResolver, re_path
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, Throttled, ValidationError
from ninja.openapi.schema import OpenAPISchema
from ninja.renderers import BaseRenderer
from ninja.security import HttpBearer
from ninja.throttling import BaseThrottle
from pydantic_core import PydanticSerializationError, to_json
from redis.exceptions import RedisError

from accounts.access import Access, InvalidToken, access_for_token
from accounts.idempotency import IdempotencyConflict
from accounts.receipts import ChainBroken
from agentsite import openapi
from agentsite.endpoints import approvals_router, traces_router
from agentsite.json_body import JsonParser
from runs.api.endpoints import router as runs_router
from runs.errors import Conflict, Invalid
from traces.tree import QueryError

logger = logging.getLogger(__name__)
AWAY_FOR_S = 5.0
CALLS_A_MINUTE = 1200
View = Callable[..., HttpResponseBase]


class Token(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> Access:
        access = access_for_token(token)
        return access if request.method == "GET" else access.acting()


class PerToken(BaseThrottle):
    """Counts in the cache, minute by minute; a cache that is away limits nobody, and is not asked again for a while, so
    that calls do not wait for it."""

    away_until = 0.0

    def allow_request(self, request: HttpRequest) -> bool:
        access: Access | None = getattr(request, "auth", None)
        if access is None or access.token is None or time.monotonic() < self.away_until:
            return True
        key = f"api:{access.token.id}:{int(time.time() // 60)}"
        try:
            return _counted(key) <= CALLS_A_MINUTE
        except (RedisError, OSError):
            PerToken.away_until = time.monotonic() + AWAY_FOR_S
            return True

    def wait(self) -> float:
        return 60 - time.time() % 60


def _counted(key: str) -> int:
    try:
        return int(cache.incr(key))
    except ValueError:  # the first call of this minute; of two at once only one is counted
        cache.add(key, 1, timeout=120)
        return 1


class Compact(BaseRenderer):
    """What the API answers are plain values already; a page of fifty runs is written in a quarter of json's time."""

    media_type = "application/json"

    def render(self, request: HttpRequest, data: Any, *, response_status: int) -> bytes:
        try:
            return to_json(data)
        except PydanticSerializationError:  # half of a surrogate pair: no UTF-8 can write it, an escape can
            return json.dumps(data).encode()


class Api(NinjaAPI):
    """Also an address or a method that is not there is answered with a problem document."""

    @property
    def urls(self) -> tuple[list[URLResolver | URLPattern], str, str]:
        patterns, app, namespace = super().urls
        for pattern in patterns:
            if isinstance(pattern, URLPattern):
                pattern.callback = _as_problem(pattern.callback)
        return [*patterns, re_path("", _nothing_here)], app, namespace

    def get_openapi_schema(self, **where: Any) -> OpenAPISchema:
        schema = super().get_openapi_schema(**where)
        openapi.describe(schema)
        return schema


def _as_problem(view: View) -> View:
    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        asked = request.method
        if asked == "HEAD":
            request.method = "GET"  # the server leaves the body out
        try:
            response = view(request, *args, **kwargs)
        except Http404:  # the root of the API, which is a name and no page
            return _nothing_here(request)
        finally:
            request.method = asked
        if not isinstance(response, HttpResponseNotAllowed):
            return response
        refused = problem(405, f"{request.method} is not possible here; {response['Allow']} is.")
        refused["Allow"] = response["Allow"]
        return refused

    return answer


@csrf_exempt
def _nothing_here(request: HttpRequest) -> HttpResponse:
    return problem(404, f"There is nothing at {request.path}; {api.docs_url} lists what there is.")


ABOUT = """Send `Authorization: Bearer TOKEN`; `manage.py create_token` makes one, and so does your settings page.

- Errors are problem details (RFC 9457, `application/problem+json`): `status`, `title`, `detail`, and for 422 `errors`,
  each with `field` and `message`. 401: no usable token. 403: a right or a scope is missing. 404: not there, or another
  team's. 409: not possible as things stand. 429: more than 1,200 calls in a minute; `Retry-After` says when to go on.
- Lists take `limit` (at most 200) and `cursor`, the `next` of the page before.
- A POST with an `Idempotency-Key` that is sent again gets the first answer, and nothing happens twice.
- Times are RFC 3339 in UTC, money is a decimal string of US dollars, ids are UUIDs that rise with time."""
api = Api(
    title="agentsite",
    version="1",
    description=ABOUT,
    auth=Token(),
    throttle=[PerToken()],
    parser=JsonParser(),
    renderer=Compact(),
    docs_url="/docs",
    urls_namespace="api",
)
api.add_router("", runs_router)
api.add_router("", approvals_router)
api.add_router("", traces_router)


def problem(status: int, detail: str, errors: Sequence[Mapping[str, str]] = (), **more: Any) -> HttpResponse:
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    if errors:
        body["errors"] = list(errors)
    return HttpResponse(json.dumps(body), status=status, content_type="application/problem+json")


def _field(location: Sequence[object]) -> str:
    """`("body", "payload", "limits", "max_steps")` -> `limits.max_steps`."""
    parts = [str(part) for part in location]
    if parts[:1] in (["body"], ["query"], ["path"]):
        parts = parts[2:] if parts[0] == "body" else parts[1:]
    return ".".join(parts) or "body"


def _validation(errors: Sequence[Mapping[str, Any]]) -> HttpResponse:
    shown = [{"field": _field(error["loc"]), "message": str(error["msg"])} for error in errors]
    return problem(422, "; ".join(f"{error['field']}: {error['message']}" for error in shown), shown)


@api.exception_handler(ValidationError)
def _ninja_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    return _validation(error.errors)


@api.exception_handler(pydantic.ValidationError)
def _pydantic_invalid(request: HttpRequest, error: pydantic.ValidationError) -> HttpResponse:
    return _validation([{"loc": ("body", "", *item["loc"]), "msg": item["msg"]} for item in error.errors()])


@api.exception_handler(Invalid)
def _invalid(request: HttpRequest, error: Invalid) -> HttpResponse:
    return problem(422, str(error), [{"field": field, "message": text} for field, text in error.errors.items()])


@api.exception_handler(QueryError)
def _bad_query(request: HttpRequest, error: QueryError) -> HttpResponse:
    more = {"position": error.position, "end": error.end, "suggestion": error.suggestion}
    return problem(422, str(error), [{"field": "q", "message": str(error)}], **more)


@api.exception_handler(Conflict)
def _conflict(request: HttpRequest, error: Conflict) -> HttpResponse:
    return problem(409, error.detail, current_status=error.status)


@api.exception_handler(ChainBroken)
def _broken_chain(request: HttpRequest, error: ChainBroken) -> HttpResponse:
    return problem(503, str(error))


@api.exception_handler(IdempotencyConflict)
def _used_key(request: HttpRequest, error: IdempotencyConflict) -> HttpResponse:
    return problem(409, str(error))


@api.exception_handler(Http404)
def _not_found(request: HttpRequest, error: Http404) -> HttpResponse:
    return problem(404, str(error) or "There is nothing here.")


@api.exception_handler(PermissionDenied)
def _forbidden(request: HttpRequest, error: PermissionDenied) -> HttpResponse:
    return problem(403, str(error) or "You may not do this.")


@api.exception_handler(InvalidToken)
@api.exception_handler(AuthenticationError)
def _unauthorized(request: HttpRequest, error: Exception) -> HttpResponse:
    detail = str(error) if isinstance(error, InvalidToken) else "Send a token: Authorization: Bearer …"
    response = problem(401, detail)
    invalid = ', error="invalid_token"' if isinstance(error, InvalidToken) else ""
    response["WWW-Authenticate"] = f'Bearer realm="agentsite"{invalid}'
    return response


@api.exception_handler(Throttled)
def _throttled(request: HttpRequest, error: Throttled) -> HttpResponse:
    response = problem(429, f"More than {CALLS_A_MINUTE} calls in a minute.")
    if error.wait:
        response["Retry-After"] = str(int(error.wait) + 1)
    return response


@api.exception_handler(RequestDataTooBig)
def _too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    return problem(413, "The body is larger than 2.5 MB.")


@api.exception_handler(HttpError)
def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    if isinstance(error.__cause__, Invalid):  # the router wraps whatever reading the body raises
        return _invalid(request, error.__cause__)
    if isinstance(error.__cause__, ValueError):
        return problem(error.status_code, f"The body is not JSON: {error.__cause__}")
    return problem(error.status_code, str(error))


@api.exception_handler(Exception)
def _internal(request: HttpRequest, error: Exception) -> HttpResponse:
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return problem(500, "agentsite failed while it worked on this. It is in the log of the server.")
