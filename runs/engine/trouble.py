"""A model that fails: which one is asked next, when, and what is said when none is left. Pure, over what was recorded.

Each failed try is a step that names its model and what it said. A person who was asked and answered begins a new round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runs.engine.ports import ModelError
from runs.engine.types import JsonObject, Question, Step, StopReason

MOST_TRIES = 5
TRIES_BEFORE_FALLBACK = 2
OPTIONAL_TRIES = 3
LONGEST_RETRY_S = 60.0
ASK_AFTER_S = 900.0  # of waiting for a breaker, in which no try is used up
NOT_ASKED = "unavailable"  # its breaker was open: no try at all
TRY_AGAIN = "Try again"
LOST = "The reply was lost; it may have been billed."
UNUSABLE = "The reply came to its end and is billed."
# These are said of the account, not of a model: another model of the same provider would hear the same.
OF_THE_ACCOUNT = frozenset({"authentication_error", "billing_error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed try, as its step keeps it."""

    model: str
    code: str
    detail: str
    retryable: bool
    retry_in_s: float

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


def failure_of(step: Step) -> Failure:
    kept: JsonObject = step.input if isinstance(step.input, dict) else {}
    return Failure(
        model=step.model,
        code=str(kept.get("code", "")),
        detail=str(kept.get("detail", step.error)),
        retryable=bool(kept.get("retryable", True)),
        retry_in_s=float(kept.get("retry_in_s", 0.0)),
    )


def kept(error: ModelError, retry_in_s: float) -> JsonObject:
    """What a failed step keeps of its error, for `failure_of`."""
    return {
        "code": error.code,
        "detail": error.detail,
        "retryable": error.retryable,
        "retry_in_s": retry_in_s,
        **({"may_be_billed": True} if error.may_be_billed else {}),
    }


def models_left(chain: Sequence[str], failures: Sequence[Failure]) -> list[str]:
    """The models that may still be asked in this round, in their order. Empty when none is left."""
    if any(failure.code in OF_THE_ACCOUNT for failure in failures):
        return []
    return [model for place, model in enumerate(chain) if not _given_up(model, place == len(chain) - 1, failures)]


def _given_up(model: str, is_last: bool, failures: Sequence[Failure]) -> bool:
    own = [failure for failure in failures if failure.model == model and failure.code != NOT_ASKED]
    if any(not failure.retryable for failure in own):
        return True
    if is_last:
        return len(own) >= MOST_TRIES
    return len(own) >= TRIES_BEFORE_FALLBACK or any(failure.retry_in_s > LONGEST_RETRY_S for failure in own)


def wait_s(error: ModelError, tries: int) -> float:
    """Until the next try: the provider's own word, or twice as long each time."""
    if error.retry_after_s is not None:
        return error.retry_after_s
    return float(min(2.0 ** (tries - 1), LONGEST_RETRY_S))


def is_enough(error: ModelError, attempt: int, is_last: bool) -> bool:
    """Of a call that the run can do without."""
    return attempt >= OPTIONAL_TRIES or (is_last and not error.retryable)


def is_over(failures: Sequence[Failure]) -> bool:
    """Whether the last word was a refusal that a person's patience would not change."""
    return bool(failures) and not failures[-1].retryable


def question(key: str, chain: Sequence[str], failures: Sequence[Failure], waited: str) -> Question:
    tried = [_line(model, [each for each in failures if each.model == model]) for model in chain]
    last = (str(failures[-1]) if failures else waited).rstrip(".")
    return Question(
        key=key,
        title="The model does not answer",
        text=f"The run is parked and nothing is lost, but no model can be used now. The last word was: {last}. "
        "Try again when it is back, or stop the run.",
        options=(TRY_AGAIN,),
        closed=True,
        tried=tuple(line for line in (*tried, waited) if line),
        unanswered=StopReason.MODEL_ERROR,
    )


def _line(model: str, own: Sequence[Failure]) -> str:
    if not own:
        return ""
    return f"{model}: {len(own)} {'try' if len(own) == 1 else 'tries'}, the last ended with {own[-1]}"
