"""What pace a model can be given at all: the same calls without an engine, each of many callers one after the other.

`plain` is bytes over asyncio: what the loopback model itself can do. `SDK` is a process of threads that do nothing but
stream replies through the Anthropic SDK, as one worker process does: more than that no engine on it can make. The
callers begin spread over one time of the model. `python -m tests.bench.pace` measures the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.bench.engine import ENDLESS, loopback

TURNS = 10  # of the conversation that is sent
SETTLE_S = 2.0


def conversation() -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Read the time."}]
    for turn in range(TURNS):
        asked = {"timezone": f"Etc/GMT+{turn}", "reasoning": "The task asks for the time.", "confidence": 0.95}
        use = {"type": "tool_use", "id": f"toolu_{turn:024d}", "name": "time__now", "input": asked}
        told = {"type": "tool_result", "tool_use_id": use["id"], "content": "2026-11-25T12:00:00+00:00, a Wednesday"}
        said = [{"type": "text", "text": f"I read the time, for the {turn + 1}th time."}, use]
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": [told]}]
    tool = {"name": "time__now", "description": "Reads the time.", "input_schema": {"type": "object"}}
    return {"model": "m", "max_tokens": 1000, "system": "You read clocks. " * 90, "messages": messages, "tools": [tool]}


class Callers:
    """Counts what `number` callers have got, and for how much processor time of this process."""

    def __init__(self, name: str, number: int, model_s: float, seconds: float) -> None:
        self.name = name
        self.number = number
        self.model_s = model_s
        self.seconds = seconds
        self.got = [0] * number
        self.over = False

    def begins_after(self, place: int) -> float:
        return self.model_s * place / self.number

    def measure(self) -> None:
        time.sleep(SETTLE_S + self.model_s)
        before, cpu, began = sum(self.got), time.process_time(), time.perf_counter()
        time.sleep(self.seconds)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        self.over = True
        calls = sum(self.got) - before
        rate, each = calls / took, cpu * 1000 / calls
        pace = rate * self.model_s / self.number
        print(f"{self.name:<8}{self.number:>6}{self.model_s:>8.1f}{rate:>9.0f}{pace:>8.1%}{each:>8.2f}", flush=True)


def plain(url: str, callers: Callers) -> None:
    body = json.dumps({**conversation(), "stream": True}).encode()
    sent = b"POST /v1/messages HTTP/1.1\r\nhost: model\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    async def call(place: int) -> None:
        await asyncio.sleep(callers.begins_after(place))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        while not callers.over:
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            callers.got[place] += 1
        writer.close()

    async def everybody() -> None:
        await asyncio.gather(asyncio.to_thread(callers.measure), *map(call, range(callers.number)))

    asyncio.run(everybody())


def sdk(url: str, callers: Callers) -> None:
    import anthropic

    client = anthropic.Anthropic(api_key="loopback", base_url=url, max_retries=0)
    body = {**conversation(), "stream": True}

    def call(place: int) -> None:
        time.sleep(callers.begins_after(place))
        while not callers.over:
            stream = client.post(
                "/v1/messages", body=body, cast_to=object, stream=True, stream_cls=anthropic.Stream[object]
            )
            for event in anthropic.Stream.raw_events(stream.response):
                event.json()
            stream.response.close()
            callers.got[place] += 1

    threads = [threading.Thread(target=call, args=(place,)) for place in range(callers.number)]
    for thread in threads:
        thread.start()
    callers.measure()
    for thread in threads:
        thread.join()
    client.close()


WAYS: tuple[tuple[str, Callable[[str, Callers], None]], ...] = (("plain", plain), ("SDK", sdk))


def main(argv: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--callers", type=int, action="append", help="how many at once (16, 64, 500)")
    options.add_argument("--model", type=float, default=0.5, help="seconds of the model (0.5)")
    options.add_argument("--seconds", type=float, default=5.0, help="how long is counted (5)")
    given = options.parse_args(argv)
    print(f"{'caller':<8}{'number':>6}{'model s':>8}{'calls/s':>9}{'pace':>8}{'CPU ms':>8}")
    with loopback(ENDLESS, given.model) as url:
        for name, way in WAYS:
            for number in given.callers or (16, 64, 500):
                way(url, Callers(name, number, given.model, given.seconds))


if __name__ == "__main__":
    main()
