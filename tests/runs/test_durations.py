from __future__ import annotations

import pytest

from runs import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10 s", 10),
        ("45min", 2700),
        ("45 Minutes", 2700),
        ("1.5 h", 5400),
        ("1,5 h", 5400),
        ("2 days", 172_800),
        ("0 s", 0),
        ("", None),
        ("  ", None),
    ],
)
def test_what_people_write(text: str, seconds: int | None) -> None:
    assert durations.read(text) == seconds


@pytest.mark.parametrize("text", ["45", "soon", "-1 h", "1 week", "1.2345 s", "0.5 s", "1 h 30 min", "9" * 12 + " s"])
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Write"):
        durations.read(text)


def test_a_number_alone_where_its_unit_is_known() -> None:
    assert durations.read("10", plain="s") == 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (10, "10 s"), (90, "90 s"), (2700, "45 min"), (86_400, "24 h"), (172_800, "2 d"), (None, "")],
)
def test_it_is_written_in_the_largest_whole_unit_and_read_again(seconds: int | None, text: str) -> None:
    assert durations.written(seconds) == text
    assert durations.read(text) == seconds
