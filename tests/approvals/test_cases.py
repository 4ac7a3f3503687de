"""The list of cases names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.approvals.cases import CASES

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("place", CASES.values(), ids=CASES)
def test_the_case_is_held(place: str) -> None:
    file, _, name = place.partition("::")
    assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(encoding="utf-8"), re.MULTILINE)
