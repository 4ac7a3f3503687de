"""One model call through the journal: bounded before, recorded after, its failures recorded too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from runs.engine import trouble
from runs.engine.budget import PromptBound, fit, from_count, room_to_answer
from runs.engine.fallback import Models, counted
from runs.engine.halting import Park, Stop
from runs.engine.ports import Breakers, Budget, BudgetExceeded, Clock, Controls, Interrupted, Journal, Llm, ModelError
from runs.engine.types import (
    Limits,
    ModelReply,
    ModelRequest,
    Parked,
    Room,
    RunSpec,
    Step,
    StepKind,
    StepStatus,
    StopReason,
    Usage,
)

STOPPED = "stopped"
CUT_OFF = "The worker that asked was gone before the model had answered."


class Caller:
    """Calls the model on behalf of one run."""

    def __init__(
        self,
        run: RunSpec,
        journal: Journal,
        llm: Llm,
        budget: Budget,
        controls: Controls,
        clock: Clock,
        breakers: Breakers,
    ) -> None:
        self.run = run
        self.models = Models(run.agent, journal, clock, breakers)
        self.journal = journal
        self.llm = llm
        self.budget = budget
        self.controls = controls
        self.clock = clock
        self.bound = PromptBound()
        self._cut_off = run.call_cut_off
        self.promised: set[str] = set()  # intents of proposed actions, whose one work step is still to come

    def call(
        self,
        key: str,
        kind: StepKind,
        title: str,
        request: ModelRequest,
        *,
        plan_step: int | None = None,
        keep_wrap_up: bool = True,
        conversation: bool = True,
        optional: bool = False,
        refine: Callable[[Step], Step] = lambda step: step,
    ) -> Step:
        """The recorded step of `key`. A call that fails is tried again later (`Park`) or ends the run (`Stop`); an
        `optional` one is in the end recorded under `key` as failed. `refine` completes the step before it is recorded.
        Without `keep_wrap_up` this is the last call, for which budget and time were kept back."""
        failures = self.models.failures(key)
        recorded = self.journal.recorded(key)
        if recorded is not None:
            if conversation:
                self._learn(request, recorded.usage)
            return recorded
        chain = self.models.chain(request.model)
        bound = (self.bound if conversation else PromptBound()).of(request)
        cut_off = next(iter(trouble.models_left(chain, failures)), chain[-1])
        self._record_cut_off(key, kind, title, plan_step, cut_off, bound)
        self.check(last=not keep_wrap_up)
        request = self.models.choose(key, request, chain, failures, optional)
        fitted = self._fit(request, bound, keep_wrap_up)
        attempt = len(self.models.failures(key)) + 1  # of this round: a person may just have begun one
        begun = Step(
            key=key,
            kind=kind,
            title=title,
            model=request.model,
            attempt=attempt,
            plan_step=plan_step,
            started_at=self.clock.now(),
        )
        try:
            step = self.journal.once(key, kind, lambda: refine(self._produce(begun, fitted, timed=keep_wrap_up)))
        except Interrupted as stopped:
            self._record_failure(
                self._failed(begun, "Stopped while the model was answering.", stopped, bound), "interrupted"
            )
            self.check()
            raise Park(Parked(why="retry", retry_in_s=0)) from None
        except ModelError as error:
            if optional and trouble.is_enough(error, attempt, request.model == chain[-1]):
                return self._record(refine(replace(self._failed(begun, error.detail, error, bound), key=key)))
            wait = trouble.wait_s(error, attempt) if error.retryable else 0.0
            failed = self._failed(begun, f"{error.code}: {error.detail}", error, bound)
            self._record_failure(replace(failed, input=trouble.kept(error, wait)), "failed")
            raise self.models.after(key, request.model, chain, wait) from None
        if conversation:
            self._learn(request, step.usage)
        return step

    def heed(self) -> None:
        """What people wish, before anything new is begun."""
        match self.controls.check():
            case "cancel":
                raise Stop(StopReason.CANCELLED, "A person cancelled this run.")
            case "pause":
                raise Park(Parked(why="paused"))

    def check(self, *, last: bool = False) -> None:
        """Before each new step: people's wishes, then the limits of steps and time. Who stopped stays stopped."""
        self.heed()
        if not last and (stopped := self.journal.recorded(STOPPED)) is not None:
            raise Stop(StopReason(stopped.input["reason"]), stopped.summary)
        limits = self.run.limits
        needed = 1 if last else 2 + len(self.promised)
        if limits.max_steps is not None and self.journal.spent().steps + needed > limits.max_steps:
            raise Stop(StopReason.MAX_STEPS, f"the limit of {limits.max_steps} steps is reached", "max_steps")
        if not last and limits.max_seconds is not None and self.elapsed_s() >= limits.max_seconds:
            raise Stop(StopReason.MAX_SECONDS, f"the limit of {limits.max_seconds} seconds is reached", "max_seconds")

    def room_to_answer(self, results: int) -> Room:
        return room_to_answer(self.bound, results, self.run.agent.model, self.budget)

    def record_stop(self, stop: Stop) -> None:
        """So that a crash while wrapping up changes neither the reason nor the fact."""
        step = Step(
            kind=StepKind.GUARDRAIL,
            title="Stopped",
            status=StepStatus.DENIED,
            summary=stop.detail,
            input={"reason": stop.reason.value},
            started_at=self.clock.now(),
        )
        self.journal.once(STOPPED, StepKind.GUARDRAIL, lambda: step)

    def elapsed_s(self) -> float:
        """Working time: without the waits for people, and those that a model's provider asked for."""
        waited = self.run.waited_ms / 1000 + self.models.parked_s
        return (self.clock.now() - self.run.started_at).total_seconds() - waited

    def _fit(self, request: ModelRequest, bound: int, keep_wrap_up: bool) -> ModelRequest:
        """Close to a limit the provider is asked for its own count: our bound takes each new byte for a token."""
        try:
            try:
                fitted = self._reserved(request, bound, keep_wrap_up)
                exact = bound if fitted.max_tokens == request.max_tokens else self._counted(request, bound)
            except BudgetExceeded:
                exact = self._counted(request, bound)
                if exact >= bound:
                    raise
            return fitted if exact >= bound else self._reserved(request, exact, keep_wrap_up)
        except BudgetExceeded as exceeded:
            raise Stop(StopReason(exceeded.limit), exceeded.detail, exceeded.field) from None

    def _reserved(self, request: ModelRequest, bound: int, keep_wrap_up: bool) -> ModelRequest:
        limits: Limits = self.run.limits
        spent = self.journal.spent()
        return fit(request, bound, limits=limits, spent=spent, budget=self.budget, keep_wrap_up=keep_wrap_up)

    def _counted(self, request: ModelRequest, bound: int) -> int:
        tokens = self.llm.count_tokens(request)
        return bound if tokens is None else min(bound, from_count(tokens))

    def _produce(self, begun: Step, request: ModelRequest, *, timed: bool) -> Step:
        self.journal.in_flight(begun)
        interrupted = self._interrupted if timed else self.controls.interrupted
        reply = self.models.through_breaker(
            request.model,
            lambda: self.llm.complete(request, on_text=self.journal.text, interrupted=interrupted),
        )
        return replace(
            begun,
            summary=_summary(reply),
            input={"messages": len(request.messages), "max_tokens": request.max_tokens},
            output={"content": list(reply.content), "stop_reason": reply.stop_reason, "request_id": reply.request_id},
            reasoning=reply.text if reply.tool_uses else "",
            model=reply.model,
            usage=reply.usage,
            price=self.budget.price(reply.model, reply.usage),
            duration_ms=self._since(begun),
        )

    def _interrupted(self) -> bool:
        limit = self.run.limits.max_seconds
        return self.controls.interrupted() or (limit is not None and self.elapsed_s() >= limit)

    def _failed(self, begun: Step, detail: str, error: ModelError | Interrupted, bound: int) -> Step:
        """A reply that was lost but may have been billed has no price: unknown, not nothing. One that came to its end,
        and was of no use, has the price of what it used."""
        step = replace(
            begun, status=StepStatus.ERROR, summary=detail[:300], error=detail, duration_ms=self._since(begun)
        )
        if not error.may_be_billed:
            return step
        price = self.budget.price(begun.model, error.usage)
        said = f"{detail.rstrip('.')}. {trouble.UNUSABLE if error.usage_is_final else trouble.LOST}"
        if not error.usage_is_final and self.budget.worst_price(begun.model, 1000, 1000) != 0:
            output = max(error.usage.output_tokens, error.streamed_bytes)
            lost = self.budget.worst_price(begun.model, error.usage.prompt_tokens or bound, output)
            price = replace(price, usd=None, lost_usd=lost or Decimal(0))
        return replace(step, summary=said[:300], error=said, usage=error.usage, price=price)

    def _record_cut_off(
        self, key: str, kind: StepKind, title: str, plan_step: int | None, model: str, bound: int
    ) -> None:
        """The first call that is not recorded is the one that was on its way when an earlier worker was killed."""
        if not self._cut_off:
            return
        self._cut_off = False
        begun = Step(key=key, kind=kind, title=title, model=model, plan_step=plan_step, started_at=self.clock.now())
        cut = Interrupted(CUT_OFF)
        cut.may_be_billed = True
        self._record_failure(self._failed(begun, CUT_OFF, cut, bound), "interrupted")

    def _record_failure(self, failed: Step, how: str) -> Step:
        """Under a key of its own kind: being interrupted does not use up the tries of a failing model."""
        key = f"{failed.key}:{how}"
        return self._record(replace(failed, key=f"{key}:{counted(self.journal, key) + 1}"))

    def _record(self, step: Step) -> Step:
        return self.journal.once(step.key, step.kind, lambda: step)

    def _learn(self, request: ModelRequest, usage: Usage) -> None:
        self.bound.learn(request, usage)

    def _since(self, begun: Step) -> int:
        started: datetime = begun.started_at or self.clock.now()
        return max(0, round((self.clock.now() - started).total_seconds() * 1000))


def _summary(reply: ModelReply) -> str:
    if reply.text:
        return " ".join(reply.text.split())[:300]
    names = [str(block.get("name", "")).replace("__", ".", 1) for block in reply.tool_uses]
    return f"Calls {', '.join(names)}"[:300] if names else ""


def reply_of(step: Step) -> ModelReply:
    """The reply that a model step recorded."""
    output: dict[str, Any] = step.output if isinstance(step.output, dict) else json.loads(step.output or "{}")
    return ModelReply(
        content=tuple(output.get("content") or ()),
        stop_reason=output.get("stop_reason"),
        usage=step.usage,
        model=step.model,
        request_id=str(output.get("request_id") or ""),
    )
