"""Threads that are used again: by the next piece of work, by several at once, and after a fork."""

from __future__ import annotations

import os
import threading

from runs.threads import Threads
from tests.up import eventually


def names_of(threads: Threads, number: int) -> set[int]:
    """The threads that did `number` pieces of work which overlapped."""
    done: list[int] = []
    together = threading.Barrier(number + 1)

    def work() -> None:
        done.append(threading.get_ident())
        together.wait(20)

    for _ in range(number):
        threads.start(work)
    together.wait(20)
    eventually(lambda: threads.idle >= number)
    return set(done)


def test_a_free_thread_takes_the_next_piece_of_work() -> None:
    threads = Threads("test")
    assert names_of(threads, 1) == names_of(threads, 1)


def test_work_at_the_same_time_has_threads_of_its_own() -> None:
    threads = Threads("test")
    three = names_of(threads, 3)
    assert len(three) == 3
    assert names_of(threads, 2) < three


def test_a_fork_begins_with_none() -> None:
    threads = Threads("test")
    names_of(threads, 2)
    child = os.fork()
    if not child:
        done = threading.Event()
        threads.start(done.set)
        os._exit(0 if done.wait(20) else 1)
    assert os.waitpid(child, 0)[1] == 0
