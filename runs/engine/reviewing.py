"""Looking back while a run works: turns are scored, the plan is marked and revised, the answer is judged and may be
revised once, and work that leads nowhere is stopped early."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from runs.engine import planning
from runs.engine.context import Conversation
from runs.engine.deciding import Caller, reply_of
from runs.engine.evaluators import Evaluation, Progress, evaluation_request, read_evaluation
from runs.engine.halting import Stop
from runs.engine.planning import Failed, PlanState
from runs.engine.ports import Journal
from runs.engine.types import AgentSpec, JsonObject, ModelRequest, RunSpec, Step, StepKind, StepStatus, StopReason

PLAN = "The plan for this task, for you to follow:\n{plan}"
REVISED = (
    "The plan was changed, because this did not hold: {failed} What was found: {found}\n"
    "Do not act on the steps that stood on it. What is planned from here on:\n{plan}"
)
WITHDRAWN = "These queued actions were withdrawn and will not happen, because {failed} did not hold: {titles}."
REFUTED = "This assumption of the plan did not hold: {failed} What was found: {found}"
BETWEEN = "evaluate:after:"
REVISE = (
    "A review of your answer against the task found: {sentence} (score {score:.2f}, {threshold:.2f} is needed). "
    "Improve on it: do what is missing, if it can be done, then give the whole answer anew. There is no further review."
)
NOT_AS_PLANNED = "Not done: an assumption it stands on did not hold ({failed}). The plan is being changed first."


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An answer that was judged too poor to end with, but better than none."""

    answer: str
    score: float


class Reviewer:
    """Judges the work of one run. A judge that fails, or for which there is no room, never fails the run."""

    def __init__(
        self, run: RunSpec, caller: Caller, journal: Journal, conversation: Conversation, plan: PlanState, system: str
    ) -> None:
        self.run = run
        self.agent: AgentSpec = run.agent
        self.caller = caller
        self.journal = journal
        self.conversation = conversation
        self.plan = plan
        self.system = system
        self.withdraw: Callable[[Collection[int], str], list[str]] = lambda plan_steps, why: []
        self.progress = Progress()
        self.draft: Draft | None = None
        self.revisions = 0
        self._judged: set[str] = set()

    # --- the plan ----------------------------------------------------------------------------------------------------

    def make_plan(self, tool_names: Sequence[str]) -> None:
        if not self.agent.planning:
            return
        request = planning.plan_request(self.agent, self.run.task, tool_names, self.system)
        step = self.caller.call(
            "plan", StepKind.PLAN, "Plan", request, conversation=False, optional=True, refine=planning.refine
        )
        self.plan.now = planning.refine(step).plan
        if self.plan.now:
            self.conversation.notice(PLAN.format(plan=planning.described(self.plan.now)))

    def _withdraw(self, failed: Failed) -> None:
        """What was queued in good faith is not left to be approved once its ground is gone."""
        if not failed.all_steps:
            return
        named = " and ".join(f"“{text.rstrip('.')}”" for text in failed.assumptions)
        found = f" ({failed.found.rstrip('.')})" if failed.found else ""
        if titles := self.withdraw(failed.all_steps, f"the plan no longer holds, because {named} did not hold{found}"):
            self.conversation.notice(WITHDRAWN.format(titles="; ".join(titles), failed=named))

    def _revise(self, key: str, failed: Failed, too_late: str) -> None:
        """Nothing of the steps that stand on what failed is done before this has replaced them, or, where there is no
        room for a revision, taken them away."""
        plan = self.plan.now
        if plan is None or not failed.assumptions:
            return
        said = "; ".join(failed.assumptions).rstrip(".") + "."
        if not failed.steps:
            self.conversation.notice(REFUTED.format(failed=said, found=failed.found))
            return
        refine = partial(planning.revise, plan=plan, failed=failed)
        request = planning.revision_request(self.agent, self.run.task, plan, failed, self.system)
        step = self._aside(
            key.replace("evaluate", "revise", 1), StepKind.PLAN, "Revise the plan", request, refine, too_late
        )
        self.revisions += step is not None
        revised = (refine(step).plan if step else None) or planning.with_replaced(plan, failed, ())
        self.plan.now = revised
        left = planning.described(revised) or "nothing: decide afresh what is left to do."
        self.conversation.notice(REVISED.format(failed=said, found=failed.found, plan=left))

    # --- turns -------------------------------------------------------------------------------------------------------

    def doubt(self, turn: int, steps: Sequence[Step]) -> str:
        """Asked between the reads of a turn and its effects: why the effects must not follow. Empty when they may."""
        if self.agent.evaluation != "every_step" or not steps or not planning.is_open_to_doubt(self.plan.now):
            return ""
        failed, _ = self._judge_work(f"evaluate:{turn}:reads", "Evaluate what was read", steps, f"model:{turn + 1}")
        return NOT_AS_PLANNED.format(failed="; ".join(failed.assumptions)) if failed.steps else ""

    def between(self, done: Sequence[Step], left: Collection[int | None], too_late: str) -> None:
        """Asked between the actions of a batch, about what has happened in it so far: what is `left` to happen, for
        these steps of the plan, is withdrawn where it stands on what did not hold. A deed can undo what a look had
        confirmed, so only what was refuted already is beyond doubt."""
        key = f"{BETWEEN}{done[-1].key.partition(':')[2]}"
        if self.agent.evaluation != "every_step":
            return
        if self.journal.recorded(key) is not None or planning.may_fall(self.plan.now, left):
            rest = [step for step in done if step.key not in self._judged]
            self._judge_work(key, "Evaluate in between", rest, too_late)

    def turn(self, turn: int, steps: Sequence[Step]) -> None:
        """Scores what a turn did. Raises `Stop` when nothing moves any more."""
        rest = [step for step in steps if step.key not in self._judged]
        if self.agent.evaluation != "every_step" or not rest:
            return
        _, verdict = self._judge_work(f"evaluate:{turn}", "Evaluate the step", rest, f"model:{turn + 1}")
        if verdict is not None and (stalled := self.progress.saw(verdict)):
            raise Stop(StopReason.DIMINISHING_RETURNS, stalled)

    def _judge_work(
        self, key: str, title: str, steps: Sequence[Step], too_late: str
    ) -> tuple[Failed, Evaluation | None]:
        happened = [{"tool": s.tool, "status": s.status, "input": s.input, "output": s.output} for s in steps]
        self._judged.update(step.key for step in steps)
        before = self.plan.now
        verdict = self._judge(key, title, happened, too_late=too_late)
        if verdict is None:
            return Failed(assumptions=()), None
        failed = planning.newly_failed(before, self.plan.now, verdict.sentence)
        self._withdraw(failed)
        self._revise(key, failed, too_late)
        return failed, verdict

    # --- the answer --------------------------------------------------------------------------------------------------

    def accepts(self, answer: str) -> bool:
        """Whether the run ends with this answer. One that is judged below the threshold is sent back, once."""
        if self.agent.evaluation == "off":
            return True
        if self.draft is not None:
            return True
        verdict = self._judge("evaluate:final", "Evaluate the answer", {"answer": answer}, too_late="result")
        threshold = self.agent.answer_threshold
        if verdict is None or verdict.score >= threshold:
            return True
        self.draft = Draft(answer=answer, score=verdict.score)
        said = verdict.sentence or "it does not do what the task asks for."
        self.conversation.notice(REVISE.format(sentence=said, score=verdict.score, threshold=threshold))
        return False

    def better(self, answer: str) -> str:
        """The revised answer, unless its review finds it worse than the one it was to improve on."""
        if self.draft is None:
            return answer
        happened = {"answer": answer}
        verdict = self._judge("evaluate:revised", "Evaluate the revised answer", happened, too_late="result")
        return answer if verdict is None or verdict.score >= self.draft.score else self.draft.answer

    def saved(self, stop: Stop) -> str | None:
        """The answer that was to be improved on, when what ended the run is only that there was no room to do so."""
        if self.draft is None or stop.reason is StopReason.CANCELLED:
            return None
        return self.draft.answer

    # --- one verdict -------------------------------------------------------------------------------------------------

    def _judge(self, key: str, title: str, happened: object, *, too_late: str) -> Evaluation | None:
        """Records a verdict and marks the plan with it; None when there is none."""
        request = evaluation_request(self.agent, self.run.task, self.plan.now, happened)
        step = self._aside(key, StepKind.EVALUATE, title, request, self._with_verdict, too_late)
        if step is None:
            return None
        self.plan.now = self._with_verdict(step).plan
        return _verdict_of(step)

    def _aside(
        self,
        key: str,
        kind: StepKind,
        title: str,
        request: ModelRequest,
        refine: Callable[[Step], Step],
        too_late: str,
    ) -> Step | None:
        """A call beside the conversation, or None without room for it. `too_late` names the step before which it has
        to be made, so that a run which is resumed with more room does not make up for it afterwards."""
        if self.journal.recorded(too_late) is not None and self.journal.recorded(key) is None:
            return None
        try:
            return self.caller.call(
                key,
                kind,
                title,
                request,
                plan_step=self.plan.step,
                conversation=False,
                optional=True,
                refine=refine,
            )
        except Stop as stop:
            if stop.reason is StopReason.CANCELLED:
                raise
            return None

    def _with_verdict(self, step: Step) -> Step:
        """The step with its score and the plan as it is marked now; an answer that is no verdict is an error."""
        plan = self.plan.now
        try:
            verdict = read_evaluation(reply_of(step).text)
        except ValueError as error:
            unusable = step.error or f"No usable verdict: {error}"
            return replace(step, status=StepStatus.ERROR, error=unusable, plan=plan)
        return replace(
            step,
            score=verdict.score,
            summary=verdict.sentence[:300],
            reasoning=verdict.sentence,
            plan=plan and _marked(plan, verdict),
        )


def _marked(plan: JsonObject, verdict: Evaluation) -> JsonObject:
    return planning.mark(plan, done=verdict.plan_steps_done, assumptions=verdict.assumptions, actual=verdict.sentence)


def _verdict_of(step: Step) -> Evaluation | None:
    if step.status is not StepStatus.OK:
        return None
    return read_evaluation(reply_of(step).text)
