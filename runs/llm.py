"""The Anthropic SDK behind the engine's `Llm` port. Worker code only: importing the SDK costs a second and 66 MB."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from email.utils import parsedate_to_datetime
from functools import partial

import anthropic
import httpx2

from runs.engine.ports import Interrupted, ModelError
from runs.engine.types import JsonObject, ModelReply, ModelRequest
from runs.pools import Pools
from runs.replies import DETAIL_CHARACTERS, Reply, bad_reply, tokens_of
from runs.threads import Threads, Watch

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
# Pings keep a connection alive for ever; a reply in which nothing but pings came for this long is given up.
SILENCE_TIMEOUT_S = 600.0
POLL_S = 0.2
COUNT_TIMEOUT_S = 10.0
OFFICIAL_URL = "https://api.anthropic.com"
# The SDK refuses to work without a key and would look for one in the environment; servers without keys ignore this one.
NO_KEY = "no-key"

CACHED: JsonObject = {"type": "ephemeral"}
# So far back from a mark the provider looks for what it has cached.
LOOKBACK_BLOCKS = 20

RETRYABLE_TYPES = frozenset({"overloaded_error", "rate_limit_error", "api_error", "timeout_error"})
RETRYABLE_STATUSES = frozenset({408, 409, 429})

_clients: dict[tuple[str, ...], AnthropicLlm] = {}
_clients_lock = threading.Lock()


def build_llm(base_url: str, api_key: str, features: Collection[str] = ()) -> AnthropicLlm:
    """One client for each endpoint and key in this process; safe to share between threads. Empty means the default."""
    name = (base_url, api_key, *sorted(features))
    with _clients_lock:
        if name not in _clients:
            _clients[name] = AnthropicLlm(base_url, api_key, features=features)
        return _clients[name]


class AnthropicLlm:
    def __init__(
        self,
        base_url: str = "",
        api_key: str = "",
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
        features: Collection[str] = (),
    ) -> None:
        self._features = frozenset(features)
        key = api_key or NO_KEY
        self._silence_timeout_s = silence_timeout_s
        make = partial(
            anthropic.Anthropic,
            api_key=key,
            # The SDK appends /v1 itself.
            base_url=base_url.rstrip("/").removesuffix("/v1") or OFFICIAL_URL,
            max_retries=0,
            timeout=httpx2.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S),
            # The SDK sends a bearer token only; other servers of this API may read the older header.
            default_headers={"x-api-key": key} if base_url else None,
        )
        self._pools = Pools(make)

    def complete(
        self, request: ModelRequest, *, on_text: Callable[[str], None], interrupted: Callable[[], bool]
    ) -> ModelReply:
        """Streams one reply. `on_text` runs in the calling thread, `interrupted` in one that looks after all calls;
        every stop reason is left to the caller."""
        pump = _Pump(self._pools, request_body(request, self._features), interrupted, self._silence_timeout_s)
        _streams.start(pump.run)
        try:
            with _watch.over(pump.look):
                return self._follow(pump, on_text)
        except BaseException:
            pump.abandon()
            raise

    def count_tokens(self, request: ModelRequest) -> int | None:
        """As the provider counts the prompt; None from one that can't, or that does not answer soon."""
        body = {name: value for name, value in request_body(request).items() if name not in ("max_tokens", "stream")}
        try:
            with self._pools.client() as client:
                found = client.with_options(timeout=COUNT_TIMEOUT_S).post(
                    "/v1/messages/count_tokens", body=body, cast_to=object
                )
        except (anthropic.AnthropicError, httpx2.HTTPError, ValueError):
            return None
        tokens = found.get("input_tokens") if isinstance(found, dict) else None
        return tokens_of(tokens) or None

    def _follow(self, pump: _Pump, on_text: Callable[[str], None]) -> ModelReply:
        try:
            while text := pump.next_text():
                on_text(text)
            return pump.reply.finish(pump.request_id)
        except (ModelError, Interrupted) as error:
            error.may_be_billed = pump.reply.has_begun or pump.was_sent(error)
            error.usage = pump.reply.usage
            error.usage_is_final = pump.reply.is_counted
            error.streamed_bytes = pump.reply.streamed_bytes
            raise


_streams = Threads("model-stream")
_watch = Watch(_streams, POLL_S)


class _Pump:
    """Reads one reply in a thread of its own, so that a caller waiting for more can always give up at once. Only text
    and the end wake the caller: most events of a stream are neither.

    The SDK has no way to break off a request whose response headers have not come; a thread that is left behind has.
    """

    def __init__(
        self,
        pools: Pools[anthropic.Anthropic],
        body: JsonObject,
        interrupted: Callable[[], bool],
        silence_timeout_s: float,
    ) -> None:
        self.request_id = ""
        self.reply = Reply()
        self._interrupted = interrupted
        self._silence_timeout_s = silence_timeout_s
        self._heard_at = time.monotonic()
        self._pools = pools
        self._body = body
        self._heard: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._abandoned = False
        self._response: httpx2.Response | None = None

    def next_text(self) -> str:
        """Empty when `reply` is complete. Raises `ModelError` or `Interrupted`."""
        heard = self._heard.get()
        if isinstance(heard, Exception):
            raise model_error(heard) from heard
        return heard

    def look(self) -> None:
        """Ends the call when somebody wants that, or when nothing was heard for too long."""
        try:
            if self._interrupted():
                self._heard.put(Interrupted("the model call was interrupted"))
            elif time.monotonic() - self._heard_at > self._silence_timeout_s:
                self._heard.put(ModelError("timeout", "the model was silent for too long", retryable=True))
        except Exception as error:  # noqa: BLE001 handed to the caller's thread
            self._heard.put(error)

    def was_sent(self, error: Exception) -> bool:
        """Whether the request may have arrived, though nothing of a reply came: no answer that the provider gave, and
        no connection that never stood."""
        if isinstance(error, Interrupted):
            return self._response is not None
        cause = error.__cause__
        while isinstance(cause, anthropic.APIConnectionError) and cause.__cause__ is not None:
            cause = cause.__cause__
        never_stood = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
        return isinstance(cause, httpx2.TransportError) and not isinstance(cause, never_stood)

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            if self._response is not None:
                self._response.close()

    def run(self) -> None:
        try:
            with self._pools.client() as client:
                self._read(client)
            self._heard.put(ModelError("incomplete_reply", "the reply ended before it was complete", retryable=True))
        except Exception as error:  # noqa: BLE001 handed to the caller's thread, which classifies it
            self._heard.put(error)

    def _read(self, client: anthropic.Anthropic) -> None:
        # Not `messages.create`: that warns for models near their end, and a warning may be an error to the host.
        # Written here, because the SDK copies each part of a long conversation before it writes it.
        written = json.dumps(self._body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        stream = client.post(
            "/v1/messages", content=written, cast_to=object, stream=True, stream_cls=anthropic.Stream[object]
        )
        response = stream.response
        with self._lock:
            self._response = response
            abandoned = self._abandoned
        try:
            if not abandoned:
                self._forward(response)
        finally:
            response.close()

    def _forward(self, response: httpx2.Response) -> None:
        self.request_id = response.headers.get("request-id", "")
        content_type = response.headers.get("content-type", "")
        if "text/event-stream" not in content_type:
            start = response.read()[:200].decode(errors="replace")
            raise bad_reply(f"expected an event stream, got {content_type or 'no content type'}: {start}")
        for sse in anthropic.Stream.raw_events(response):
            if not sse.data:
                continue
            event = sse.json()
            if not isinstance(event, dict):
                raise bad_reply("an event of the stream is not a JSON object")
            if sse.event == "error" or event.get("type") == "error":
                raise stream_error(event)
            self._take(event)

    def _take(self, event: JsonObject) -> None:
        if event.get("type") == "ping" or self.reply.stopped:
            return
        self._heard_at = time.monotonic()
        text = self.reply.add(event)
        if text or self.reply.stopped:
            self._heard.put(text)


def request_body(request: ModelRequest, features: Collection[str] = ()) -> JsonObject:
    """`features`: what this provider takes beyond the common ground: `strict` tools, a `temperature`."""
    body: JsonObject = {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": [_sendable(message) for message in _marked(request)],
        "stream": True,
    }
    if request.goes_on:
        body["cache_control"] = CACHED  # up to its last block
    if request.system:
        # Marked for itself: the mark at the end moves on with each turn, and another run shares only tools and system.
        body["system"] = [{"type": "text", "text": request.system, "cache_control": CACHED}]
    if request.tools:
        body["tools"] = [_definition(tool, strict="strict" in features) for tool in request.tools]
    if request.temperature is not None and "temperature" in features:
        body["temperature"] = request.temperature
    if request.tool_choice is not None:
        body["tool_choice"] = request.tool_choice
    output: JsonObject = {}
    if request.effort:
        output["effort"] = request.effort
    if request.output_schema is not None:
        output["format"] = {"type": "json_schema", "schema": _strict_schema(request.output_schema)}
    if output:
        body["output_config"] = output
    return body


def _marked(request: ModelRequest) -> Sequence[JsonObject]:
    """The messages, marked where the prompt before this one ended, if the mark at the end would not find it: because
    there is none, or because the turn since made many calls. A change of `tool_choice` leaves nothing to be found."""
    if len(request.messages) < 3 or request.tool_choice is not None:
        return request.messages
    *before, ended, reply, since = request.messages
    is_near = len(reply["content"]) + len(since["content"]) < LOOKBACK_BLOCKS
    if is_near and request.goes_on:
        return request.messages
    *blocks, end = ended["content"]
    return [*before, {**ended, "content": [*blocks, {**end, "cache_control": CACHED}]}, reply, since]


def _definition(tool: JsonObject, *, strict: bool) -> JsonObject:
    """A strict tool with its schema in the subset that the API accepts; elsewhere one like the others."""
    if not tool.get("strict"):
        return tool
    plain = {name: value for name, value in tool.items() if name != "strict"}
    return {**plain, "strict": True, "input_schema": _strict_schema(tool["input_schema"])} if strict else plain


def _strict_schema(schema: JsonObject) -> JsonObject:
    """The schema in the subset that the API accepts, or as it is where the SDK can't say how."""
    try:
        return anthropic.transform_schema(schema)
    except (ValueError, TypeError, AttributeError, AssertionError):
        return schema


def _sendable(message: JsonObject) -> JsonObject:
    """The API refuses two things that a model can write: empty text blocks, and tool input that is no JSON object."""
    content = message.get("content")
    if message.get("role") != "assistant" or not isinstance(content, list):
        return message
    return {**message, "content": list(_sendable_blocks(content))}


def _sendable_blocks(blocks: Iterable[JsonObject]) -> Iterable[JsonObject]:
    for block in blocks:
        if block.get("type") == "tool_use" and not isinstance(block.get("input"), dict):
            yield {**block, "input": {"unreadable": block.get("input")}}
        elif block.get("type") != "text" or block.get("text"):
            yield block


def stream_error(event: JsonObject) -> ModelError:
    """An error event inside a stream that began well: only its type tells what kind it is."""
    error = event.get("error")
    error = error if isinstance(error, dict) else {}
    code = str(error.get("type") or "api_error")
    detail = str(error.get("message") or "the stream ended with an error")
    return ModelError(code, detail[:DETAIL_CHARACTERS], retryable=code in RETRYABLE_TYPES)


def model_error(error: Exception) -> Exception:
    """What happened as a `ModelError`; an error that is none of the SDK's or the network's comes back as it is."""
    match error:
        case ModelError():
            return error
        case anthropic.APIStatusError():
            return _status_error(error)
        case anthropic.APITimeoutError() | httpx2.TimeoutException():
            return ModelError("timeout", "the model did not answer in time", retryable=True)
        case anthropic.APIConnectionError() | httpx2.HTTPError():
            cause = error.__cause__ or error
            detail = f"{type(cause).__name__}: {cause}"
            return ModelError("connection_error", detail[:DETAIL_CHARACTERS], retryable=True)
        case anthropic.AnthropicError():
            return ModelError("client_error", str(error)[:DETAIL_CHARACTERS], retryable=False)
        case ValueError():  # JSON or UTF-8 that can't be read
            return bad_reply(f"the reply could not be read: {error}")
        case _:
            return error


def _status_error(error: anthropic.APIStatusError) -> ModelError:
    status, headers = error.status_code, error.response.headers
    retryable = status in RETRYABLE_STATUSES or status >= 500
    if (word := headers.get("x-should-retry")) in ("true", "false"):
        retryable = word == "true"
    detail = (error.api_message or error.message or f"HTTP {status}")[:DETAIL_CHARACTERS]
    return ModelError(
        str(error.type or f"http_{status}"), detail, retryable=retryable, retry_after_s=retry_after_s(headers)
    )


def retry_after_s(headers: httpx2.Headers) -> float | None:
    """Seconds from `retry-after-ms` or `retry-after`, which may be a date."""
    if (milliseconds := _number(headers.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
