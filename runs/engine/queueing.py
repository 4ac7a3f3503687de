"""What a batch run wants to do, until people are asked about all of it at once, or until it is taken back because the
plan it belongs to has changed."""

from __future__ import annotations

from collections.abc import Collection

from runs.engine.acting import Hands
from runs.engine.types import Action, ActionStatus, Mode, RunSpec, Step


class Queue:
    def __init__(self, run: RunSpec, hands: Hands) -> None:
        self.is_batch = run.mode is Mode.BATCH
        self.hands = hands
        self.verdicts = hands.verdicts
        self.settled = 0
        self._withdrawn: list[str] = []  # what people are told of beside the next questions

    @property
    def waits(self) -> bool:
        """Whether an agent that has nothing more to say has something that waits to be asked for, or was asked for."""
        return self.is_batch and (self.verdicts.asked(self._key) is not None or bool(self.verdicts.queued()))

    def settle(self, why: str) -> list[tuple[Action, Step]] | None:
        """When the agent has nothing else to do: asks for everything that was queued; once decided, carries it out in
        order. None when nothing was queued."""
        if not self.is_batch:
            return None
        key = self._key
        if self.verdicts.asked(key) is None:
            queue = self.verdicts.queued()
            if not queue:
                return None
            self.verdicts.ask(key, queue, "\n\n".join([why, *self._withdrawn]).strip())
        self._withdrawn = []
        done = self.hands.carry_out_plan(key, self.hands.asking.await_verdicts(key))
        self.settled += 1
        return done

    def withdraw(self, plan_steps: Collection[int], why: str) -> list[str]:
        """Takes back what has yet to happen for these steps of the plan: what is queued, and what was released and has
        not begun. Returns the titles of what was queued; the others' own results tell of it, each in its turn."""
        titles = []
        for intent in [intent for intent, place in self.hands.places.items() if place in plan_steps]:
            action = self.verdicts.find(intent)
            if action is None:
                continue
            if self.hands.is_queued(action):
                self.verdicts.withdraw(action, why)
                self.hands.carry_out(f"effect:{intent}", self.verdicts.find(intent) or action)
                titles.append(action.title)
            elif action.status is ActionStatus.APPROVED:
                self.verdicts.withdraw(action, why)
        if titles:
            self._withdrawn.append(f"Withdrawn: {'; '.join(titles)}. {why[:1].upper()}{why[1:]}.")
        return titles

    @property
    def _key(self) -> str:
        return f"queue:{self.settled + 1}"
