"""The routing table, whole, and the line people read."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from runs.engine.policy import percent


@settings(max_examples=50, deadline=None, database=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_percent_never_rounds_up_to_a_threshold(thousandths: int, below: int) -> None:
    threshold = thousandths / 1000
    share = threshold
    for _ in range(below):
        share = math.nextafter(share, 0)

    assert percent(threshold) == f"{thousandths / 10:.1f}".removesuffix(".0") + "%"
    assert share == threshold or percent(share) != percent(threshold)
