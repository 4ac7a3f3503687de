"""Large outputs: the head for the model, the whole for whoever reads on."""

from __future__ import annotations

from itertools import pairwise

import pytest

from runs.engine.context import as_text
from runs.engine.fakes import FakeJournal
from runs.engine.outputs import HEAD_CHARACTERS, MOST_CHARACTERS, MOST_MATCHES, matches, piece, shown, stored
from runs.engine.types import Step, StepKind

LONG = "".join(f"{number:06d}\n" for number in range(6000))


def step(output: object, kind: StepKind = StepKind.TOOL, key: str = "tool:1:0") -> Step:
    return Step(kind=kind, title="t", key=key, output=output)


@pytest.mark.parametrize("output", ["", "x" * MOST_CHARACTERS, {"rows": [1, 2]}, None])
def test_what_is_not_large_is_given_as_it_is(output: object) -> None:
    assert shown(step(output)) == output


@pytest.mark.parametrize("output", ["x" * (MOST_CHARACTERS + 1), {"rows": ["x" * MOST_CHARACTERS]}])
def test_what_is_large_is_given_as_head_size_and_handle(output: object) -> None:
    text = shown(step(output))

    assert len(text) < HEAD_CHARACTERS + 400
    assert '"tool:1:0"' in text
    assert "output__read" in text
    assert f"{len(as_text(output)):,} characters" in text


def test_pieces_one_after_the_other_are_the_whole() -> None:
    parts, offset = [], 0
    while offset is not None:
        found = piece(LONG, offset)
        parts.append(found["text"])
        offset = found["next_offset"]

    assert "".join(parts) == LONG
    assert all(len(part) <= HEAD_CHARACTERS for part in parts)
    assert piece(LONG, len(LONG) + 9) == {"text": "", "offset": len(LONG) + 9, "next_offset": None, "size": len(LONG)}


def test_a_text_is_found_with_what_stands_around_it() -> None:
    found = matches(LONG, "004321", 0)

    [match] = found["matches"]
    assert LONG[match["offset"] :].startswith("004321")
    assert "004320" in match["text"]
    assert found["next_offset"] is None
    assert matches("One TWO", "two", 0)["matches"][0]["offset"] == 4
    assert matches(LONG, "nowhere", 0)["matches"] == []


def test_many_matches_are_given_ten_at_a_time() -> None:
    first = matches(LONG, "00012", 0)
    assert len(first["matches"]) == MOST_MATCHES
    assert matches("a" * MOST_MATCHES, "a", 0)["next_offset"] is None

    places, offset = [], 0
    while offset is not None:
        found = matches(LONG, "00012", offset)
        places += [each["offset"] for each in found["matches"]]
        offset = found["next_offset"]

    assert len(places) == LONG.count("00012")
    assert all(before < after for before, after in pairwise(places))


def test_only_results_of_calls_can_be_read() -> None:
    journal = FakeJournal()
    for key, kind in (("tool:1:0", StepKind.TOOL), ("model:1", StepKind.MODEL), ("tool:1:1", StepKind.GUARDRAIL)):
        entry = step(LONG, kind, key)
        journal.once(key, kind, lambda entry=entry: entry)  # type: ignore[misc]

    assert stored(journal, "tool:1:0") == LONG
    assert [stored(journal, handle) for handle in ("model:1", "tool:1:1", "tool:9:9", "")] == [None] * 4
