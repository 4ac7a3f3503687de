from __future__ import annotations

import json
from typing import Any

from runs.tools.answers import misfit

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["order", "amount"],
}
GOOD = json.dumps({"order": "48213", "amount": 84})


def test_why_an_answer_does_not_fit() -> None:
    fault = misfit(SCHEMA)
    assert fault(GOOD) == ""
    assert fault(json.dumps({"order": "48213", "amount": "a lot"})) == "$.amount: 'a lot' is not of type 'number'"
    assert fault("no") == "it is not JSON"
    assert fault("[" * 100_000) == "it is not JSON"
    assert misfit(None)("anything") == ""
    assert misfit({"$ref": "https://elsewhere.example/schema"})(GOOD) == ""
