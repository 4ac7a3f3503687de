"""Publishing from a thread of its own: in order, and only the last of what a later command writes over."""

from __future__ import annotations

import queue
import threading

import pytest

from runs import live


def test_only_the_last_text_of_a_run_is_sent() -> None:
    commands: list[live.Command] = [
        ("SET", "a", "1"),
        ("PUBLISH", "a", "x"),
        ("SET", "b", "1"),
        ("SET", "a", "2"),
        ("PUBLISH", "a", "y"),
        ("DEL", "a"),
    ]
    assert live._latest(commands) == [
        ("PUBLISH", "a", "x"),
        ("SET", "b", "1"),
        ("PUBLISH", "a", "y"),
        ("DEL", "a"),
    ]


def test_what_has_gathered_goes_in_one_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    trips: list[list[live.Command]] = []
    first, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def deliver(commands: list[live.Command]) -> None:
        trips.append(commands)
        first.set()
        assert go_on.wait(10)
        if len(trips) == 2:
            done.set()

    monkeypatch.setattr(live, "_deliver", deliver)
    outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
    monkeypatch.setattr(live, "_outbox", [outbox])
    threading.Thread(target=live._post, args=(outbox,), daemon=True).start()
    live.ring("a-run", 1)
    assert first.wait(10)
    for seq in range(2, 5):
        live.ring("a-run", seq)
    go_on.set()
    assert done.wait(10)
    assert [len(trip) for trip in trips] == [1, 3]
