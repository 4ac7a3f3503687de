from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from runs.engine.ports import Interrupted, ModelError
from runs.engine.types import ModelReply, ModelRequest, Usage
from runs.llm import AnthropicLlm, build_llm, request_body
from runs.replies import tool_input, usage_of
from tests.adapters.scripted_http import Answer, ScriptedHttp, Write, scripted_http, sse

JsonObject = dict[str, Any]
STREAM = {"content-type": "text/event-stream", "request-id": "req_1"}


@pytest.fixture
def server() -> Iterator[ScriptedHttp]:
    with scripted_http() as script:
        yield script


def start(**usage: object) -> JsonObject:
    message: JsonObject = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5-20260901",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 12, "output_tokens": 1, **usage},
    }
    return {"type": "message_start", "message": message}


def block(index: int, content: JsonObject, *deltas: JsonObject) -> list[JsonObject]:
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *parts: str) -> list[JsonObject]:
    deltas = [{"type": "text_delta", "text": part} for part in parts]
    return block(index, {"type": "text", "text": ""}, *deltas)


def tool(index: int, *parts: str) -> list[JsonObject]:
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return block(index, {"type": "tool_use", "id": "toolu_1", "name": "shop__refund", "input": {}}, *deltas)


def end(stop_reason: str | None = "end_turn", **usage: object) -> list[JsonObject]:
    return [
        {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 7, **usage}},
        {"type": "message_stop"},
    ]


def stream(*events: JsonObject) -> Answer:
    return Answer(headers=STREAM, body=sse(*events))


def ask(
    server: ScriptedHttp,
    *,
    request: ModelRequest | None = None,
    on_text: Callable[[str], None] = lambda _: None,
    interrupted: Callable[[], bool] = lambda: False,
    **options: Any,
) -> ModelReply:
    llm = AnthropicLlm(server.url, "secret-key", **options)
    return llm.complete(request or simple(), on_text=on_text, interrupted=interrupted)


def simple(**fields: Any) -> ModelRequest:
    given = {"model": "claude-sonnet-5-5", "system": "Be brief.", "messages": ({"role": "user", "content": "hi"},)}
    return ModelRequest(**(given | fields))


def failure(server: ScriptedHttp, answer: Answer, **options: Any) -> ModelError:
    server.answers = [answer]
    with pytest.raises(ModelError) as caught:
        ask(server, **options)
    return caught.value


# What is sent


def test_request_goes_out_as_one_stream_with_cache_effort_format_and_tool_choice(server: ScriptedHttp) -> None:
    server.answers = [stream(start(), *text(0, "ok"), *end())]
    definition = {"name": "t", "description": "d", "input_schema": {"type": "object"}}
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    ask(
        server,
        request=simple(
            tools=(definition,), tool_choice={"type": "none"}, effort="low", output_schema=schema, max_tokens=99
        ),
    )
    assert server.paths == ["/v1/messages"]
    assert server.requests == [
        {
            "model": "claude-sonnet-5-5",
            "max_tokens": 99,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [definition],
            "tool_choice": {"type": "none"},
            "stream": True,
            "cache_control": {"type": "ephemeral"},
            "output_config": {
                "effort": "low",
                "format": {"type": "json_schema", "schema": {**schema, "additionalProperties": False}},
            },
        }
    ]
    assert server.headers[0]["authorization"] == "Bearer secret-key"
    assert server.headers[0]["x-api-key"] == "secret-key"


@pytest.mark.parametrize(
    ("features", "sent"),
    [
        ((), (None, None)),
        (("strict",), (True, None)),
        (("temperature",), (None, 0.0)),
        (("strict", "temperature"), (True, 0.0)),
    ],
)
def test_strict_tools_and_a_temperature_are_sent_to_who_takes_them(
    server: ScriptedHttp, features: tuple[str, ...], sent: tuple[object, object]
) -> None:
    server.answers = [stream(start(), *text(0, "ok"), *end())]
    schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}, "required": ["a"]}
    definition = {"name": "t", "description": "d", "input_schema": schema, "strict": True}

    ask(server, request=simple(tools=(definition,), temperature=0.0), features=features)

    [body] = server.requests
    [tool] = body["tools"]
    assert (tool.get("strict"), body.get("temperature")) == sent
    assert (tool["input_schema"].get("additionalProperties") is False) is ("strict" in features)


def test_key_of_the_environment_is_never_used(server: ScriptedHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "stray-key")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "stray-token")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    server.answers = [stream(start(), *end())]
    AnthropicLlm(server.url + "/v1/", "").complete(simple(), on_text=lambda _: None, interrupted=lambda: False)
    assert "stray" not in json.dumps(server.headers)
    assert server.paths == ["/v1/messages"]


def test_what_the_api_would_refuse_is_mended_on_the_way_out_only() -> None:
    written = {"type": "tool_use", "id": "t1", "name": "a", "input": "{broken"}
    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    messages = ({"role": "assistant", "content": [{"type": "text", "text": ""}, thinking, written]},)
    body = request_body(simple(messages=messages))
    assert body["messages"][0]["content"] == [thinking, {**written, "input": {"unreadable": "{broken"}}]
    assert written["input"] == "{broken"


def test_output_schema_that_the_sdk_cannot_narrow_is_sent_as_it_is() -> None:
    schema = {"properties": {"a": True}}
    assert request_body(simple(output_schema=schema))["output_config"]["format"]["schema"] == schema


# What comes back


def test_blocks_are_kept_exactly_and_text_is_shown_as_it_comes(server: ScriptedHttp) -> None:
    thinking = block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Let me "},
        {"type": "thinking_delta", "thinking": "see."},
        {"type": "signature_delta", "signature": "c2ln"},
    )
    server.answers = [
        stream(
            start(),
            *thinking,
            {"type": "ping"},
            *text(1, "Hel", "lo"),
            {"type": "something_new", "index": 9},
            *tool(2, '{"order": "48213", "am', 'ount": 1.0}'),
            *block(3, {"type": "redacted_thinking", "data": "abc", "not_known_yet": {"x": [1.0]}}),
            *end("tool_use"),
        )
    ]
    shown: list[str] = []
    reply = ask(server, on_text=shown.append)
    assert reply.content == (
        {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "toolu_1", "name": "shop__refund", "input": {"order": "48213", "amount": 1.0}},
        {"type": "redacted_thinking", "data": "abc", "not_known_yet": {"x": [1.0]}},
    )
    assert shown == ["Hel", "lo"]
    assert (reply.stop_reason, reply.model, reply.request_id) == ("tool_use", "claude-sonnet-5-5-20260901", "req_1")


def test_text_is_given_in_the_calling_thread(server: ScriptedHttp) -> None:
    server.answers = [stream(start(), *text(0, "a"), *end())]
    threads: set[int] = set()
    ask(server, on_text=lambda _: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_one_thread_looks_after_all_calls(server: ScriptedHttp) -> None:
    released = threading.Event()
    server.answers = [stalling(released) for _ in range(4)]
    lookers: list[set[int]] = [set() for _ in range(4)]
    broken_off: list[Interrupted] = []

    def call(seen: set[int]) -> None:
        def interrupted() -> bool:
            seen.add(threading.get_ident())
            return all(lookers)

        try:
            ask(server, interrupted=interrupted)
        except Interrupted as error:
            broken_off.append(error)

    threads = [threading.Thread(target=call, args=(seen,)) for seen in lookers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    released.set()
    assert len(broken_off) == 4
    assert len(set.union(*lookers)) == 1


def test_an_error_in_the_question_ends_the_call(server: ScriptedHttp) -> None:
    released = threading.Event()
    server.answers = [stalling(released)]

    def broken() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(server, interrupted=broken)
    released.set()


@pytest.mark.parametrize("reason", ["refusal", "max_tokens", "pause_turn", "model_context_window_exceeded"])
def test_other_stop_reasons_are_left_to_the_caller(server: ScriptedHttp, reason: str) -> None:
    server.answers = [stream(start(), *end(reason))]
    assert ask(server).stop_reason == reason


def test_deprecated_model_is_no_error(server: ScriptedHttp) -> None:
    server.answers = [stream(start(), *end())]
    ask(server, request=simple(model="claude-sonnet-4-5"))


def test_usage_of_both_kinds_of_cache_write(server: ScriptedHttp) -> None:
    created = {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 253}
    usage = {"cache_read_input_tokens": 128_955, "cache_creation_input_tokens": 1253, "cache_creation": created}
    server.answers = [stream(start(**usage), *end(output_tokens=500, cache_read_input_tokens=None))]
    assert ask(server).usage == Usage(
        input_tokens=12,
        output_tokens=500,
        cache_read_tokens=128_955,
        cache_write_5m_tokens=1000,
        cache_write_1h_tokens=253,
    )


def test_usage_without_parts_counts_as_five_minutes_and_missing_or_odd_fields_as_zero() -> None:
    assert usage_of({"cache_creation_input_tokens": 40}) == Usage(cache_write_5m_tokens=40)
    odd: JsonObject = {"input_tokens": None, "output_tokens": "7", "cache_read_input_tokens": -3, "cache_creation": []}
    assert usage_of(odd) == Usage()


@pytest.mark.parametrize(
    "written", ['{"a": ', '{"a": NaN}', '{"a": -Infinity}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a": 1} x']
)
def test_tool_input_that_is_not_strict_json_stays_text(server: ScriptedHttp, written: str) -> None:
    assert tool_input(written) == written
    server.answers = [stream(start(), *tool(0, written), *end("tool_use"))]
    assert ask(server).tool_uses[0]["input"] == written


# What goes wrong


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "invalid_request_error", False),
        (401, "authentication_error", False),
        (403, "permission_error", False),
        (404, "not_found_error", False),
        (413, "request_too_large", False),
        (408, "timeout_error", True),
        (429, "rate_limit_error", True),
        (500, "api_error", True),
        (529, "overloaded_error", True),
    ],
)
def test_status_errors(server: ScriptedHttp, status: int, kind: str, retryable: bool) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "no luck"}}).encode()
    error = failure(server, Answer(status=status, headers={"content-type": "application/json"}, body=body))
    assert (error.code, error.detail, error.retryable, error.retry_after_s) == (kind, "no luck", retryable, None)
    assert len(server.requests) == 1


def test_proxy_error_page_has_the_status_as_its_code(server: ScriptedHttp) -> None:
    error = failure(server, Answer(status=502, headers={"content-type": "text/html"}, body=b"<h1>Bad gateway</h1>"))
    assert (error.code, error.retryable) == ("http_502", True)


def test_server_may_forbid_the_retry(server: ScriptedHttp) -> None:
    assert not failure(server, Answer(status=429, headers={"x-should-retry": "false"})).retryable
    assert failure(server, Answer(status=400, headers={"x-should-retry": "true"})).retryable


def test_long_retry_after_is_handed_over_and_never_slept(server: ScriptedHttp) -> None:
    began = time.monotonic()
    assert failure(server, Answer(status=429, headers={"retry-after": "3600"})).retry_after_s == 3600
    assert failure(server, Answer(status=529, headers={"retry-after-ms": "1500"})).retry_after_s == 1.5
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert failure(server, Answer(status=429, headers={"retry-after": later})).retry_after_s == pytest.approx(
        100, abs=5
    )
    assert failure(server, Answer(status=429, headers={"retry-after": "soon"})).retry_after_s is None
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(("kind", "retryable"), [("overloaded_error", True), ("invalid_request_error", False)])
def test_error_in_the_middle_of_a_stream(server: ScriptedHttp, kind: str, retryable: bool) -> None:
    event = {"type": "error", "error": {"type": kind, "message": "Overloaded"}}
    error = failure(server, stream(start(), *text(0, "Hel"), event))
    assert (error.code, error.detail, error.retryable) == (kind, "Overloaded", retryable)


def test_stream_that_ends_without_message_stop_is_no_reply(server: ScriptedHttp) -> None:
    error = failure(server, stream(start(), *text(0, "Hello")))
    assert (error.code, error.retryable) == ("incomplete_reply", True)


def test_stream_cut_off_by_the_network(server: ScriptedHttp) -> None:
    answer = Answer(headers={**STREAM, "content-length": "100000"}, body=sse(start()))
    error = failure(server, answer)
    assert (error.code, error.retryable) == ("connection_error", True)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(headers={"content-type": "text/html"}, body=b"<html>Sign in to the network</html>"),
        Answer(headers={"content-type": "application/json"}, body=b"{}"),
        Answer(body=b""),
        Answer(headers=STREAM, body=b"event: message_start\ndata: {not json\n\n"),
        Answer(headers=STREAM, body=b"event: message_start\ndata: [1]\n\n"),
        Answer(headers=STREAM, body=b"event: message_start\ndata: \xff\xfe\n\n"),
        stream({"type": "message_start", "message": None}),
        stream(start(), {"type": "content_block_start", "index": 0, "content_block": "x"}),
        stream(start(), {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}}),
        stream(start(), {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}, *end(None)),
        stream(*end()),
    ],
    ids=["html", "json", "empty", "bad-json", "list", "utf8", "message", "block", "delta", "no-reason", "no-start"],
)
def test_reply_that_cannot_be_read(server: ScriptedHttp, answer: Answer) -> None:
    error = failure(server, answer)
    assert (error.code, error.retryable) == ("bad_reply", True)


@pytest.mark.parametrize(
    ("events", "final"),
    [
        ((start(), *text(0, "ok"), *end(None)), True),
        ((start(), *text(0, "ok"), end()[0]), True),
        ((start(), *text(0, "ok"), end(None)[0]), False),
        ((start(), *text(0, "ok"), end()[1]), False),
        ((start(), *text(0, "ok")), False),
        (tuple(end()), False),
    ],
    ids=["no-reason", "no-stop", "neither", "no-count", "cut", "no-start"],
)
def test_what_an_unusable_reply_used_is_known_once_its_end_came(
    server: ScriptedHttp, events: tuple[JsonObject, ...], final: bool
) -> None:
    error = failure(server, stream(*events))
    assert error.usage_is_final is final
    assert error.streamed_bytes == (0 if events[0] == end()[0] else len("ok"))
    if final:
        assert (error.usage.input_tokens, error.usage.output_tokens) == (12, 7)


def test_nobody_listens() -> None:
    with pytest.raises(ModelError) as caught:
        AnthropicLlm("http://127.0.0.1:9", "k").complete(simple(), on_text=lambda _: None, interrupted=lambda: False)
    assert (caught.value.code, caught.value.retryable) == ("connection_error", True)


def test_server_that_stops_sending_times_out(server: ScriptedHttp) -> None:
    released = threading.Event()
    error = failure(server, stalling(released), read_timeout_s=0.3)
    released.set()
    assert (error.code, error.retryable) == ("timeout", True)


def test_server_that_only_pings_times_out(server: ScriptedHttp) -> None:
    released = threading.Event()

    def pinging(write: Write) -> None:
        write(sse(start()))
        while not released.wait(0.02):
            write(sse({"type": "ping"}))

    error = failure(server, Answer(headers=STREAM, body=pinging), silence_timeout_s=0.3)
    released.set()
    assert (error.code, error.retryable) == ("timeout", True)


# Interrupting


def stalling(released: threading.Event) -> Answer:
    def body(write: Write) -> None:
        write(sse(start(), *text(0, "Hel")))
        released.wait(30)

    return Answer(headers=STREAM, body=body)


@pytest.mark.parametrize("before_headers", [False, True])
def test_stalled_call_is_interrupted_at_once(server: ScriptedHttp, before_headers: bool) -> None:
    released = threading.Event()
    silent = Answer(headers=STREAM, before=lambda: released.wait(30))
    server.answers = [silent if before_headers else stalling(released)]
    began = time.monotonic()
    with pytest.raises(Interrupted):
        ask(server, interrupted=lambda: bool(server.requests) and time.monotonic() - began > 0.5)
    released.set()
    assert time.monotonic() - began < 2


def test_interrupted_stream_is_closed_on_the_wire(server: ScriptedHttp) -> None:
    closed = threading.Event()

    def endless(write: Write) -> None:
        ping = sse({"type": "ping", "filler": "x" * 100_000})
        while write(ping):
            pass
        closed.set()

    server.answers = [Answer(headers=STREAM, body=endless)]
    with pytest.raises(Interrupted):
        ask(server, interrupted=lambda: True)
    assert closed.wait(5)


def test_error_of_a_callback_is_not_swallowed_and_ends_the_call(server: ScriptedHttp) -> None:
    released = threading.Event()
    server.answers = [stalling(released)]

    def broken(_: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(server, on_text=broken)
    released.set()


# One client


def test_one_client_for_each_endpoint_and_key_shared_by_threads(server: ScriptedHttp) -> None:
    server.answers = [stream(start(), *text(0, "a"), *end()) for _ in range(8)]
    llm = build_llm(server.url, "k")
    assert build_llm(server.url, "k") is llm
    assert build_llm(server.url, "other") is not llm
    replies: list[str] = []

    def run() -> None:
        replies.append(llm.complete(simple(), on_text=lambda _: None, interrupted=lambda: False).text)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert replies == ["a"] * 8
