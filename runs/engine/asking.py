"""Asking people: parks the run until they have said something, and records the question and the wait as steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runs.engine.halting import Park, Stop
from runs.engine.planning import PlanState
from runs.engine.ports import Clock, Journal, Verdicts
from runs.engine.types import (
    WAITING_ACTIONS,
    Action,
    ActionStatus,
    JsonObject,
    Parked,
    Question,
    Step,
    StepKind,
    StopReason,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a person said: a text, a corrected call, or both."""

    text: str
    args: JsonObject | None
    by: str


class Asking:
    """Questions and batches of one run. `plan` names the step that is being worked on."""

    def __init__(self, journal: Journal, verdicts: Verdicts, clock: Clock, plan: PlanState) -> None:
        self.journal = journal
        self.verdicts = verdicts
        self.clock = clock
        self.plan = plan

    def ask(self, question: Question) -> Answer:
        """The answer, `Park` while there is none, or `Stop` when a person declined or nobody answered in time."""
        self.put([question])
        [action] = self.await_verdicts(question.key)
        who = ", ".join(dict.fromkeys(decision.by for decision in action.decisions))
        match action.status:
            case ActionStatus.ANSWERED:
                given = action.result if isinstance(action.result, dict) else {}
                return Answer(text=action.note, args=given.get("args"), by=who or "a person")
            case ActionStatus.REJECTED:
                why = f": {action.note.rstrip('.')}" if action.note else ""
                raise Stop(StopReason.ESCALATION_DECLINED, f"{who or 'a person'} ended the run{why}")
        raise Stop(question.unanswered, f"nobody answered in time: {question.title}")

    def put(self, questions: Sequence[Question]) -> None:
        """Into the inbox, each in a batch of its own, without waiting for an answer: several can then be answered in
        one go."""
        for question in questions:
            if self.verdicts.asked(question.key) is None:
                self.verdicts.ask_question(question)
        for question in questions if len(questions) > 1 else ():
            if self.journal.recorded(f"ask:{question.key}") is None:
                self._record_ask(question.key, self.verdicts.asked(question.key) or ())

    def await_verdicts(self, key: str) -> Sequence[Action]:
        """The decided actions of a batch, or `Park`. Records the asking, and the wait as a step of its own."""
        actions = self.verdicts.asked(key) or ()
        asked = self.journal.recorded(f"ask:{key}") or self._record_ask(key, actions)
        if self.journal.recorded(f"waited:{key}") is None:
            if any(action.status in WAITING_ACTIONS for action in actions):
                raise Park(Parked(why="approval"))
            self.let_undo(actions)
            self._record_wait(key, actions, asked)
        return actions

    def notes(self, key: str) -> dict[str, str]:
        """By intent, what people said as they approved. From the recorded wait: a row's note may be another one later,
        and a prompt that is made again must be the very same."""
        waited = self.journal.recorded(f"waited:{key}")
        return {
            each["intent"]: f"{', '.join(each['by']) or 'A person'} approved this and says: {each['note']}"
            for each in (waited.output if waited else ())
            if each["status"] == ActionStatus.APPROVED and each["note"] and "intent" in each
        }

    def let_undo(self, actions: Sequence[Action]) -> None:
        """The time in which an approval can still be taken back is slept through in the database, by no worker."""
        approved = [action.starts_at for action in actions if action.status is ActionStatus.APPROVED]
        left = max(((at - self.clock.now()).total_seconds() for at in approved if at is not None), default=0.0)
        if left > 0:
            raise Park(Parked(why="retry", retry_in_s=left))

    def _record_ask(self, key: str, actions: Sequence[Action]) -> Step:
        titles = [action.title for action in actions]
        noun = "action" if len(titles) == 1 else "actions"
        title = f"Sent {len(titles)} {noun} to the inbox"
        if any(action.kind == "question" for action in actions):
            title = "Asked a person"
        step = self._step(title, titles)
        return self.journal.once(
            f"ask:{key}", StepKind.APPROVAL, lambda: replace(step, summary="; ".join(titles)[:300])
        )

    def _record_wait(self, key: str, actions: Sequence[Action], asked: Step) -> Step:
        verdicts = [
            {
                "intent": action.intent,
                "title": action.title,
                "status": action.status.value,
                "note": action.note,
                "by": [d.by for d in action.decisions],
            }
            for action in actions
        ]
        counts = {
            name: sum(v["status"] == name for v in verdicts) for name in dict.fromkeys(v["status"] for v in verdicts)
        }
        started = asked.started_at or self.clock.now()
        step = replace(
            self._step("Wait for a person", verdicts),
            summary=", ".join(f"{count} {name}" for name, count in counts.items()),
            started_at=started,
            duration_ms=max(0, round((self.clock.now() - started).total_seconds() * 1000)),
        )
        return self.journal.once(f"waited:{key}", StepKind.APPROVAL, lambda: step)

    def _step(self, title: str, output: object) -> Step:
        return Step(
            kind=StepKind.APPROVAL,
            title=title[:200],
            output=output,
            plan_step=self.plan.step,
            started_at=self.clock.now(),
        )
