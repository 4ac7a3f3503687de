"""An agent's answer held against its output schema."""

from __future__ import annotations

from collections.abc import Callable

from jsonschema import Draft202012Validator
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

from runs.engine.calls import read_json
from runs.engine.types import JsonObject
from runs.tools.base import MESSAGE_CHARACTERS

MAX_ERRORS = 5


def misfit(schema: JsonObject | None) -> Callable[[str], str]:
    """Says why a text is no answer in this schema; empty when it is one, or when none is asked for."""
    if schema is None:
        return lambda text: ""
    validator = Draft202012Validator(schema, registry=EMPTY_REGISTRY)

    def fault(text: str) -> str:
        try:
            found = list(validator.iter_errors(read_json(text)))
        except ValueError:
            return "it is not JSON"
        except (Unresolvable, RecursionError):
            return ""  # no answer could fit: the schema is at fault, not the answer
        said = (f"{error.json_path}: {error.message[:MESSAGE_CHARACTERS]}" for error in found[:MAX_ERRORS])
        return "; ".join(said)

    return fault
