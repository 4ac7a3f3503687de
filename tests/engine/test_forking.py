"""Where a run is cut for a fork: never through a question to people or an open delegation, never at its end."""

from __future__ import annotations

import pytest

from runs.engine.forking import Entry, replayed
from runs.engine.types import StepKind

KINDS = {
    "model": StepKind.MODEL,
    "tool": StepKind.TOOL,
    "effect": StepKind.TOOL,
    "ask": StepKind.APPROVAL,
    "waited": StepKind.APPROVAL,
    "delegate": StepKind.DELEGATE,
    "evaluate": StepKind.EVALUATE,
    "wrap_up": StepKind.MODEL,
    "result": StepKind.RESULT,
}


def journal(*keys: str) -> list[Entry]:
    return [Entry(seq, key, KINDS.get(key.split(":")[0], StepKind.GUARDRAIL)) for seq, key in enumerate(keys, 1)]


PLAIN = journal("model:1", "tool:1:0", "tool:1:1", "model:2", "evaluate:final", "result")
ASKED = journal("model:1", "tool:1:0", "ask:turn:1", "waited:turn:1", "tool:1:1", "tool:1:2", "model:2")
QUEUE = journal("model:1", "tool:1:0", "model:2", "ask:queue:1", "waited:queue:1", "effect:1:0", "model:3")
CHILD = journal("model:1", "delegate:1:0", "delegate:1:1", "tool:1:0", "tool:1:1", "model:2")
STOPPED = journal("model:1", "tool:1:0", "stopped", "wrap_up", "result")
RAISED = journal("model:1", "ask:raise:1", "waited:raise:1", "raise:1", "model:2", "warned:3", "model:3")


@pytest.mark.parametrize(
    ("entries", "last", "kept"),
    [
        (PLAIN, 0, []),
        (PLAIN, 2, [1, 2]),
        (PLAIN, 4, [1, 2, 3, 4]),
        (PLAIN, 6, [1, 2, 3, 4]),
        (ASKED, 2, [1, 2]),
        (ASKED, 3, [1, 2]),
        (ASKED, 5, [1, 2]),
        (ASKED, 6, [1, 2, 3, 4, 5, 6]),
        (ASKED[:4], 4, [1, 2]),
        (QUEUE, 3, [1, 2, 3]),
        (QUEUE, 5, [1, 2, 3]),
        (QUEUE, 6, [1, 2, 3, 4, 5, 6]),
        (QUEUE[:6], 6, [1, 2, 3]),
        (CHILD, 1, [1]),
        (CHILD, 4, [1]),
        (CHILD, 5, [1, 2, 3, 4, 5]),
        (STOPPED, 5, [1, 2]),
        (RAISED, 7, [1, 5, 7]),
    ],
)
def test_what_is_replayed(entries: list[Entry], last: int, kept: list[int]) -> None:
    assert [entry.seq for entry in replayed(entries, last)] == kept
