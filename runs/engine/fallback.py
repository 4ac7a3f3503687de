"""Which model a call goes to, and what follows when it fails: another try, another model, a person, the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import TypeVar

from runs.engine import trouble
from runs.engine.breakers import Unavailable
from runs.engine.halting import Park, Stop
from runs.engine.ports import Breakers, Clock, Journal, ModelError
from runs.engine.trouble import Failure, failure_of
from runs.engine.types import AgentSpec, ModelRequest, Parked, Question, Step, StepKind, StopReason

T = TypeVar("T")


class Models:
    """The models of one run. `ask` puts a question to people; without it the run ends where people would be asked."""

    def __init__(self, agent: AgentSpec, journal: Journal, clock: Clock, breakers: Breakers) -> None:
        self.agent = agent
        self.journal = journal
        self.clock = clock
        self.breakers = breakers
        self.ask: Callable[[Question], object] | None = None
        self._parked: dict[str, float] = {}  # by key of call: the seconds between its tries

    @property
    def parked_s(self) -> float:
        """How long the run was parked for its models, over all of its calls so far."""
        return sum(self._parked.values())

    def chain(self, model: str) -> tuple[str, ...]:
        """The agent's own model has others behind it; a judge of another model has none."""
        fallbacks = self.agent.fallback_models if model == self.agent.model else ()
        return tuple(dict.fromkeys((model, *fallbacks)))

    def failures(self, key: str) -> list[Failure]:
        """Of the round that a person's last answer began."""
        number = counted(self.journal, f"{key}:failed")
        steps = [self.journal.recorded(f"{key}:failed:{each}") for each in range(1, number + 1)]
        found = [failure_of(step) for step in steps if step is not None]
        if parked := max(self._parked_s(key, [step for step in steps if step is not None]), self._waited_s(key)):
            self._parked[key] = parked
        return found[next((each for each in range(number, 0, -1) if self._is_answered(key, each)), 0) :]

    def choose(
        self, key: str, request: ModelRequest, chain: Sequence[str], failures: list[Failure], optional: bool
    ) -> ModelRequest:
        """The request for the first model that may be asked now. `Park`, `Stop` or a question when there is none; a
        call that is `optional` then goes to the last one all the same."""
        left = trouble.models_left(chain, failures)
        if not left and not optional:
            self._escalate(key, chain, failures)
            left = list(chain)
        free = [model for model in left if self.breakers.peek(_name(model)) is None]
        if not free and not optional:
            self._wait(key, left, chain, failures)
        chosen = (free or left or [chain[-1]])[0]
        if chosen == request.model:
            return request
        said = _why_changed(request.model, chosen, failures)
        self._note(f"{key}:model:{chosen}"[:120], "Went on with another model", said)
        return replace(request, model=chosen, effort=None)  # not every model takes the effort of the first

    def through_breaker(self, model: str, call: Callable[[], T]) -> T:
        name = _name(model)
        if (closed := self.breakers.enter(name)) is not None:
            raise ModelError(trouble.NOT_ASKED, closed.words, retryable=True, retry_after_s=self._until(closed))
        try:
            reply = call()
        except ModelError as error:
            if error.retryable:
                self.breakers.failed(name, f"{error.code}: {error.detail}", error.retry_after_s)
            else:
                self.breakers.worked(name)  # it answered, if only by refusing
            raise
        self.breakers.worked(name)
        return reply

    def after(self, key: str, model: str, chain: Sequence[str], wait: float) -> Exception:
        """The next try is made at once by another model, later by the same, or never."""
        failures = self.failures(key)
        left = trouble.models_left(chain, failures)
        if not left and trouble.is_over(failures):
            return _refused(failures)
        return Park(Parked(why="retry", retry_in_s=wait if left and left[0] == model else 0))

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _escalate(self, key: str, chain: Sequence[str], failures: list[Failure], waited: str = "") -> None:
        """Returns once a person wants another round."""
        if trouble.is_over(failures):
            raise _refused(failures)
        if self.ask is None:
            said = waited or f"{failures[-1].detail} ({len(failures)} tries)"
            raise Stop(StopReason.MODEL_ERROR, f"the model did not answer: {said}")
        self.ask(trouble.question(_asked(key, counted(self.journal, f"{key}:failed")), chain, failures, waited))

    def _wait(self, key: str, left: list[str], chain: Sequence[str], failures: list[Failure]) -> None:
        """`Park` until a breaker lets a call through; after a long time of that, a person is asked."""
        closed = [each for model in left if (each := self.breakers.peek(_name(model))) is not None]
        if not closed:
            return
        soonest = min(closed, key=lambda each: each.until)
        said = f"{left[0]} is {soonest.words}"
        first = self._note(f"{key}:waits", "Waits for the model", f"{said}.")
        waited = (self.clock.now() - (first.started_at or self.clock.now())).total_seconds()
        asked = f"waited:{_asked(key, counted(self.journal, f'{key}:failed'))}"
        if waited > trouble.ASK_AFTER_S and self.journal.recorded(asked) is None:
            self._escalate(key, chain, failures, said)
        raise Park(Parked(why="retry", retry_in_s=max(1.0, self._until(soonest))))

    def _is_answered(self, key: str, failures: int) -> bool:
        waited = self.journal.recorded(f"waited:{_asked(key, failures)}")
        return waited is not None and any(each["status"] == "answered" for each in waited.output)

    def _parked_s(self, key: str, failed: Sequence[Step]) -> float:
        """What was waited after each failure: no longer than was meant, for a person may have ended it."""
        parked, now = 0.0, self.clock.now()
        for step, following in zip(failed, [*failed[1:], self.journal.recorded(key)], strict=False):
            if step.started_at is not None:
                until = (following.started_at if following is not None else None) or now
                since = (until - step.started_at).total_seconds() - step.duration_ms / 1000
                parked += min(failure_of(step).retry_in_s, max(0.0, since))
        return parked

    def _waited_s(self, key: str) -> float:
        """From the first wait for a breaker until the call was made."""
        waits, called = self.journal.recorded(f"{key}:waits"), self.journal.recorded(key)
        if waits is None or waits.started_at is None:
            return 0.0
        end = called.started_at if called is not None and called.started_at is not None else self.clock.now()
        return (end - waits.started_at).total_seconds()

    def _until(self, closed: Unavailable) -> float:
        return max(0.0, (closed.until - self.clock.now()).total_seconds())

    def _note(self, key: str, title: str, summary: str) -> Step:
        step = Step(kind=StepKind.GUARDRAIL, title=title, summary=summary[:300], started_at=self.clock.now())
        return self.journal.once(key, StepKind.GUARDRAIL, lambda: step)


def counted(journal: Journal, key: str) -> int:
    """How many steps `key:1`, `key:2`, … there are."""
    return next(number for number in count() if journal.recorded(f"{key}:{number + 1}") is None)


def _name(model: str) -> str:
    return f"model:{model}"


def _asked(key: str, failures: int) -> str:
    return f"trouble:{key}:{failures}"


def _refused(failures: list[Failure]) -> Stop:
    return Stop(StopReason.MODEL_ERROR, f"the model provider refused: {failures[-1].detail}")


def _why_changed(model: str, chosen: str, failures: Sequence[Failure]) -> str:
    said = [str(failure) for failure in failures if failure.model == model]
    return f"{model} can't be used{f' ({said[-1]})' if said else ' now'}; {chosen} is asked instead."
