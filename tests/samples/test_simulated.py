"""The fake Messages API, driven through the real SDK: a client of it sees what a client of the real one sees."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest

from runs.samples.simulated import FakeMessagesServer, Reply, Script, ToolCall

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
HELLO: list[Any] = [{"role": "user", "content": "hi"}]
WEATHER: list[Any] = [{"name": "weather", "description": "", "input_schema": {"type": "object", "properties": {}}}]


@pytest.fixture
def server() -> Iterator[FakeMessagesServer]:
    with FakeMessagesServer(lambda body: Reply(text="hello")) as running:
        yield running


@pytest.fixture
def client(server: FakeMessagesServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="key", max_retries=0, timeout=10) as made:
        yield made


def stream(client: anthropic.Anthropic, **more: Any) -> Any:
    request: Json = {"model": "claude-sonnet-5-5", "max_tokens": 500, "messages": HELLO, **more}
    with client.messages.stream(**request) as events:
        return events.get_final_message()


def create(client: anthropic.Anthropic, **more: Any) -> Any:
    request: Json = {"model": "claude-sonnet-5-5", "max_tokens": 500, "messages": HELLO, **more}
    return client.messages.create(**request)


# --- what it says -----------------------------------------------------------------------------------------------------


def test_text_streams_in_pieces_and_is_whole_in_the_end(
    server: FakeMessagesServer, client: anthropic.Anthropic
) -> None:
    text = "One, two.\n\nThree – four, five six seven eight nine ten eleven twelve.  "
    server.respond = lambda body: Reply(text=text)
    with client.messages.stream(model="m", max_tokens=500, messages=HELLO) as events:
        pieces = list(events.text_stream)
        message = events.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == text
    assert (message.stop_reason, message.model) == ("end_turn", "simulated")
    assert create(client).content[0].text == text


def test_parallel_tool_calls_keep_their_inputs(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    inputs: list[Json] = [{"city": "Lund", "days": [1, 2, 3], "note": "ä" * 100}, {}]
    server.respond = lambda body: Reply(text="I look.", tools=[ToolCall("weather", each) for each in inputs])
    for message in (stream(client, tools=WEATHER), create(client, tools=WEATHER)):
        assert message.stop_reason == "tool_use"
        assert message.content[0].text == "I look."
        assert [block.input for block in message.content[1:]] == inputs
        assert len({block.id for block in message.content[1:]}) == 2


def test_structured_output_thinking_and_unknown_blocks(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    server.respond = lambda body: Reply(data={"n": 3, "why": "ünïcode"})
    message = stream(client, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(message.content[0].text) == {"n": 3, "why": "ünïcode"}
    blocks: list[Json] = [
        {"type": "thinking", "thinking": "let me see", "signature": "s"},
        {"type": "brand_new_block", "value": 1},
        {"type": "text", "text": "ok"},
    ]
    server.respond = lambda body: Reply(blocks=blocks)
    message = stream(client)
    assert [block.type for block in message.content] == ["thinking", "brand_new_block", "text"]
    assert (message.content[0].thinking, message.content[0].signature) == ("let me see", "s")


def test_stop_reason_usage_and_model_can_be_said(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "no"}
    server.respond = lambda body: Reply(
        text="no", stop_reason="refusal", stop_details=details, usage={"output_tokens": 77}, model="other"
    )
    for message in (stream(client), create(client)):
        assert (message.stop_reason, message.usage.output_tokens, message.model) == ("refusal", 77, "other")
        assert message.stop_details.category == "cyber"
    server.respond = lambda body: Reply(text="x")
    server.echo_model = True
    assert create(client).model == "claude-sonnet-5-5"


def test_max_tokens_cuts_the_text(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    server.respond = lambda body: Reply(text="abcd" * 10, tools=[ToolCall("weather")])
    message = stream(client, max_tokens=3, tools=WEATHER)
    assert (message.content[0].text, message.stop_reason) == ("abcd" * 3, "max_tokens")
    assert message.usage.output_tokens == 3
    assert len(message.content) == 1
    assert create(client, max_tokens=0).content == []


def test_models_tokens_and_keys(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    assert [model.id for model in client.models.list()] == ["simulated"]
    assert client.models.retrieve("simulated").lifecycle == "active"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("nobody")
    counted = client.messages.count_tokens(model="m", messages=HELLO)
    assert counted.input_tokens == create(client).usage.input_tokens
    server.api_key = "another"
    with pytest.raises(anthropic.AuthenticationError):
        create(client)


def test_calls_are_recorded(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    message = stream(client)
    (call,) = server.calls
    assert call.body["messages"] == HELLO
    assert call.headers["authorization"] == "Bearer key"
    assert call.usage is not None
    assert call.usage["output_tokens"] == message.usage.output_tokens
    with pytest.raises(TimeoutError, match="1 of 2 calls"):
        server.wait_for_calls(2, timeout_s=0.01)


# --- scripts ----------------------------------------------------------------------------------------------------------


def test_a_script_answers_each_conversation_in_order(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    server.respond = Script(["one", Reply(text="two")])
    other: list[Any] = [{"role": "user", "content": "another task"}]
    more = [*HELLO, {"role": "assistant", "content": "one"}, {"role": "user", "content": "and?"}]
    said = [create(client, messages=each).content[0].text for each in (HELLO, other, more)]
    assert said == ["one", "one", "two"]
    with pytest.raises(anthropic.InternalServerError, match="this is call 3"):
        create(client, messages=more)
    assert len(server.failures) == 1


def test_a_respond_that_raises_is_a_visible_500(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    def respond(body: Json) -> Reply:
        raise KeyError("order")

    server.respond = respond
    with pytest.raises(anthropic.InternalServerError, match="respond raised KeyError: 'order'"):
        stream(client)
    assert isinstance(server.failures[0], KeyError)
    server.respond = lambda body: "text"  # type: ignore[assignment, return-value]
    with pytest.raises(anthropic.InternalServerError, match="returned str"):
        stream(client)


# --- what goes wrong, as the SDK shows it -----------------------------------------------------------------------------

STATUSES = {
    400: (anthropic.BadRequestError, "invalid_request_error"),
    401: (anthropic.AuthenticationError, "authentication_error"),
    403: (anthropic.PermissionDeniedError, "permission_error"),
    404: (anthropic.NotFoundError, "not_found_error"),
    413: (anthropic.APIStatusError, "request_too_large"),
    429: (anthropic.RateLimitError, "rate_limit_error"),
    500: (anthropic.InternalServerError, "api_error"),
    529: (anthropic.InternalServerError, "overloaded_error"),
}


@pytest.mark.parametrize("status", STATUSES)
def test_each_status_has_its_class_and_type(
    server: FakeMessagesServer, client: anthropic.Anthropic, status: int
) -> None:
    kind, error_type = STATUSES[status]
    server.respond = lambda body: Reply.error(status, retry_after=7)
    with pytest.raises(kind) as caught:
        stream(client)
    error = caught.value
    assert (error.status_code, error.type) == (status, error_type)
    assert error.response.headers["retry-after"] == "7"
    assert error.request_id
    assert server.calls[0].usage is None


def test_bodies_that_are_no_answer(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    server.respond = lambda body: Reply.raw("<html>proxy</html>")
    assert create(client) == "<html>proxy</html>"
    server.respond = lambda body: Reply.raw("{", content_type="application/json")
    with pytest.raises(json.JSONDecodeError):
        create(client)
    server.respond = lambda body: Reply.raw("<html>bad gateway</html>", status=502)
    with pytest.raises(anthropic.InternalServerError):
        stream(client)


BREAKS: dict[str, tuple[Reply, type[Exception]]] = {
    "drop": (Reply(drop=True), anthropic.APIConnectionError),
    "cut at the start": (Reply(text="a b c", cut_after=0), httpx2.RemoteProtocolError),
    "cut past the end": (Reply(text="a b c", cut_after=99), httpx2.RemoteProtocolError),
    "malformed input": (Reply(tools=[ToolCall("weather", raw_input='{"a": nope}')]), ValueError),
}


@pytest.mark.parametrize("name", BREAKS)
def test_streams_that_break_off(server: FakeMessagesServer, client: anthropic.Anthropic, name: str) -> None:
    reply, kind = BREAKS[name]
    server.respond = lambda body: reply
    with pytest.raises(kind):
        stream(client, tools=WEATHER)
    server.respond = lambda body: Reply(text="again")
    assert stream(client).content[0].text == "again"


def test_a_cut_comes_after_the_deltas_that_were_asked_for(
    server: FakeMessagesServer, client: anthropic.Anthropic
) -> None:
    words = [f"word{number} " for number in range(24)]
    server.respond = lambda body: Reply(text="".join(words), cut_after=2)
    received: list[str] = []
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        client.messages.stream(model="m", max_tokens=500, messages=HELLO) as events,
    ):
        received.extend(events.text_stream)
    assert "".join(received) == "".join(words[:16])
    (call,) = server.calls
    assert call.usage is not None
    assert call.usage["output_tokens"] == round(len("".join(words[:16])) / 4)


def test_an_error_event_has_status_200(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    server.respond = lambda body: Reply(text="a b", error_after=0)
    with pytest.raises(anthropic.APIStatusError) as caught:
        stream(client)
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")


def test_a_stream_without_its_end_has_no_stop_reason(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    server.respond = lambda body: Reply(text="a b", omit_stop=True)
    assert stream(client).stop_reason is None


def test_a_stall_is_a_read_timeout_and_ends_with_the_server(
    server: FakeMessagesServer, client: anthropic.Anthropic
) -> None:
    server.respond = lambda body: Reply(text="a b", stall_after=0, stall_s=60)
    with pytest.raises(httpx2.ReadTimeout):
        stream(client, timeout=0.2)
    server.respond = lambda body: Reply(text="late", delay_s=60)
    with pytest.raises(anthropic.APITimeoutError):
        stream(client, timeout=0.2)
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 5


def test_a_client_that_leaves_is_billed_what_it_was_sent() -> None:
    with FakeMessagesServer(lambda body: Reply(text="abcd " * 2000), pace=1000) as server:
        with anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0) as client:
            with client.messages.stream(model="m", max_tokens=9000, messages=HELLO) as events:
                next(iter(events.text_stream))
            (call,) = server.calls
            assert server.wait_until_finished(call)
            assert call.usage is not None
            assert 0 < call.usage["output_tokens"] < 2500
            server.respond = lambda body: Reply(text="next")
            assert stream(client).content[0].text == "next"
        gc.collect()


USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "rain"}
BAD: dict[str, tuple[Json, str]] = {
    "temperature": ({"extra_body": {"temperature": 1}}, "temperature"),
    "dotted tool": ({"tools": [{"name": "a.b", "input_schema": {}}]}, r"tools\.0\.name"),
    "empty text": ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "non-whitespace"),
    "prefill": ({"messages": [*HELLO, {"role": "assistant", "content": "I"}]}, "prefill"),
    "no result": (
        {"messages": [*HELLO, {"role": "assistant", "content": [USE]}, {"role": "user", "content": "so?"}]},
        "without `tool_result`",
    ),
    "result twice": (
        {"messages": [*HELLO, {"role": "assistant", "content": [USE]}, {"role": "user", "content": [RESULT, RESULT]}]},
        "single result",
    ),
    "result of nothing": ({"messages": [{"role": "user", "content": [RESULT]}]}, "unexpected `tool_use_id`"),
    "marks": (
        {"system": [{"type": "text", "text": str(n), "cache_control": {"type": "ephemeral"}} for n in range(5)]},
        "maximum of 4",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_real_api_refuses_is_refused(client: anthropic.Anthropic, name: str) -> None:
    request, said = BAD[name]
    with pytest.raises(anthropic.BadRequestError, match=said):
        create(client, **request)


# --- cache and cost ---------------------------------------------------------------------------------------------------


def usage_of(message: Any) -> tuple[int, int, int, int]:
    usage = message.usage
    parts = usage.cache_creation
    assert usage.cache_creation_input_tokens == parts.ephemeral_5m_input_tokens + parts.ephemeral_1h_input_tokens
    return (
        usage.input_tokens,
        parts.ephemeral_5m_input_tokens,
        parts.ephemeral_1h_input_tokens,
        usage.cache_read_input_tokens,
    )


def test_the_cache_bills_by_prefix_and_forgets_after_five_minutes() -> None:
    now = [1000.0]
    auto: Json = {"cache_control": {"type": "ephemeral"}}
    # `{"text":"…","type":"text"}` is 25 characters around the text, and "user:" five more.
    system = "s" * (400 - 25)
    first = {"role": "user", "content": "u" * (80 - 30)}
    answer = {"role": "assistant", "content": "a" * (60 - 35)}
    second = {"role": "user", "content": "v" * (40 - 30)}
    with (
        FakeMessagesServer(lambda body: Reply(text="ok"), clock=lambda: now[0]) as server,
        anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0) as client,
    ):
        ask: Callable[..., tuple[int, int, int, int]] = lambda *messages, **more: usage_of(  # noqa: E731
            create(client, system=system, messages=list(messages), **more)
        )
        assert ask(first) == (120, 0, 0, 0)
        assert ask(first, **auto) == (0, 120, 0, 0)
        assert ask(first, **auto) == (0, 0, 0, 120)
        assert ask(first, answer, second, **auto) == (0, 25, 0, 120)
        now[0] += 299
        assert ask(first, answer, second, **auto) == (0, 0, 0, 145)
        now[0] += 299  # each read kept it alive
        assert ask(first, answer, second, **auto) == (0, 0, 0, 145)
        now[0] += 301
        assert ask(first, answer, second, **auto) == (0, 145, 0, 0)
        assert ask(first, answer, second, model="another", **auto) == (0, 145, 0, 0)
        assert ask(first, answer, second, tool_choice={"type": "none"}, tools=WEATHER, **auto)[3] == 0


def test_marks_in_the_request_and_the_hour_are_billed_apart() -> None:
    now = [0.0]
    system = [{"type": "text", "text": "s" * 375, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    user: Json = {"type": "text", "text": "u" * 50, "cache_control": {"type": "ephemeral"}}
    open_end: Json = {"type": "text", "text": "v" * 10}
    with (
        FakeMessagesServer(lambda body: Reply(text="ok"), clock=lambda: now[0]) as server,
        anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0) as client,
    ):
        request: Json = {"system": system, "messages": [{"role": "user", "content": [user, open_end]}]}
        assert usage_of(stream(client, **request)) == (10, 20, 100, 0)
        now[0] = 600
        assert usage_of(stream(client, **request)) == (10, 20, 0, 100)


def test_output_is_billed_by_its_characters(server: FakeMessagesServer, client: anthropic.Anthropic) -> None:
    server.respond = lambda body: Reply(text="x" * 401)
    assert create(client).usage.output_tokens == 101
    assert stream(client).usage.output_tokens == 101


# --- load, pace and the process ---------------------------------------------------------------------------------------


def test_many_streams_run_beside_each_other() -> None:
    gate = threading.Barrier(50, timeout=30)

    def respond(body: Json) -> Reply:
        gate.wait()  # passes only when all fifty are being answered at once
        return Reply(text="done")

    with (
        FakeMessagesServer(respond) as server,
        anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0, timeout=30) as client,
        ThreadPoolExecutor(50) as pool,
    ):
        texts = list(pool.map(lambda _: stream(client).content[0].text, range(50)))
    assert texts == ["done"] * 50


def test_a_pace_spreads_the_words() -> None:
    with (
        FakeMessagesServer(lambda body: Reply(text="abcd " * 20), pace=100, first_token_s=0.1) as server,
        anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0) as client,
    ):
        started = time.monotonic()
        stream(client)
    # A hundred characters are 25 tokens, 100 a second, after the first tenth.
    assert 0.34 < time.monotonic() - started < 5


def test_the_process_writes_its_port_and_stops_on_sigterm(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "runs.samples.simulated", "--port-file", str(port_file), "--pace", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=os.environ, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            port = int(port_file.read_text())
            assert line == f"simulated model on http://127.0.0.1:{port}\n"
            with anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}", api_key="k", max_retries=0) as client:
                assert "simulated model" in stream(client).content[0].text
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == [port_file]
