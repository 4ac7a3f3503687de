"""Pydantic types of the JSON columns of this app."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from runs.engine.rules import Comparison
from runs.schemas import Strict, unfit


class MatcherIn(Strict):
    """What one argument of a covered call may be. `optional`: it may also be absent."""

    argument: Annotated[str, Field(min_length=1, max_length=200)]
    test: Literal["equals", "one_of", "at_most", "prefix", "any"]
    value: Any = None
    optional: bool = False

    @model_validator(mode="after")
    def _complete(self) -> MatcherIn:
        problem = unfit(Comparison(self.test), self.value)
        if problem:
            raise ValueError(problem)
        return self
