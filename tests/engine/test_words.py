from __future__ import annotations

import pytest

from runs.engine.words import plain_text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"order": "48213", "lines": [{"item": "Kettle", "price": 84.0}]}, "order: 48213 · item: Kettle · price: 84.0"),
        ([{"text": "as the tool said it"}], "as the tool said it"),
        ({"paid": True, "refunded": False, "note": "", "by": None}, "paid: yes · refunded: no"),
        ("plain", "plain"),
        ({}, ""),
    ],
)
def test_json_as_people_read_it(value: object, said: str) -> None:
    assert plain_text(value) == said
