"""Asking the tools again about actions of which nobody knows whether they happened. Worker code.

A tool that could not be reached when its answer was lost may be there a minute later. "It happened" settles the action
as a person's word would. "It did not" does so only long after the call: until then the tool may still be at work on it.
Where the tool can't say, the question stays with people. Nothing is ever tried a second time.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TimedOut
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from accounts.models import Receipt
from approvals import settling
from runs import audit, lifecycle, tasks
from runs.engine.ports import EngineError, Tool
from runs.engine.types import ActionStatus
from runs.models import Action, Batch, Run

logger = logging.getLogger(__name__)
ASKED, ANSWERED = "action.reconciliation_asked", "action.reconciliation_answered"
AGAIN_AFTER = tuple(dt.timedelta(seconds=seconds) for seconds in (15, 60, 300, 1800, 7200))
PATIENCE_S = 30.0
SURELY_OVER = dt.timedelta(hours=1)
"""No tool call may take longer (`timeout_s` of a grant)."""
AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`word`: happened, did_not_happen, unknown, or timed_out."""

    word: str
    detail: str = ""


def ask_due() -> int:
    """Asks about the unknown actions that are due; returns how many. Safe to call from several workers."""
    unknown = Action.objects.filter(status=ActionStatus.UNKNOWN).order_by("-executed_at")[:AT_ONCE]
    due = [action_id for action_id in unknown.values_list("id", flat=True) if _is_due(action_id)]
    return sum(ask_again(action_id, if_due=True) is not None for action_id in due)


def ask_again(action_id: uuid.UUID, *, patience_s: float = PATIENCE_S, if_due: bool = False) -> Answer | None:
    """The tool's answer. None for an action that is not unknown (any more), or whose tool has no way to tell."""
    action = Action.objects.select_related("run__agent_version", "run__team", "run__agent").get(id=action_id)
    tool = tasks.worker_ports().toolbox.tools_for(action.run).get(action.tool)
    if tool is None or not tool.spec.can_reconcile or not _claimed(action, if_due):
        return None
    answer = _ask(tool, str(action.id), patience_s)
    _conclude(action, answer)
    return answer


def _is_due(action_id: uuid.UUID) -> bool:
    of_action = Receipt.objects.filter(subject_type="action", subject_id=str(action_id)).order_by("-seq")
    asked = list(of_action.filter(kind=ASKED).values_list("at", flat=True))
    if not asked:
        lost = of_action.filter(kind="action.unknown").values_list("at", flat=True).first()
        return lost is not None and lost + AGAIN_AFTER[0] <= timezone.now()
    return len(asked) < len(AGAIN_AFTER) and asked[0] + AGAIN_AFTER[len(asked)] <= timezone.now()


def _claimed(action: Action, if_due: bool) -> bool:
    """The receipt is the claim: it is written under the run's row, and makes the action not due for a while."""
    with transaction.atomic():
        Run.objects.select_for_update(no_key=True).get(id=action.run_id)
        if not Action.objects.filter(id=action.id, status=ActionStatus.UNKNOWN).exists():
            return False
        if if_due and not _is_due(action.id):
            return False
        audit.record(action, ASKED)
    return True


def _ask(tool: Tool, key: str, patience_s: float) -> Answer:
    """In a thread of its own: a tool that does not answer must not hold up whoever asks."""
    future: Future[str] = Future()

    def ask() -> None:
        try:
            future.set_result(tool.reconcile(key))
        except Exception as error:  # noqa: BLE001 a tool can fail in any way
            future.set_exception(error)

    threading.Thread(target=ask, name="reconcile", daemon=True).start()
    try:
        return Answer(word=future.result(timeout=patience_s))
    except TimedOut:
        return Answer(word="timed_out", detail=f"the tool timed out: no answer within {patience_s:g} s")
    except EngineError as error:
        return Answer(word="unknown", detail=str(error))


def _is_proof(action: Action, word: str) -> bool:
    over = action.executed_at is not None and action.executed_at + SURELY_OVER <= timezone.now()
    return word == "happened" or (word == "did_not_happen" and over)


def _conclude(action: Action, answer: Answer) -> None:
    with transaction.atomic():
        run = Run.objects.select_for_update(no_key=True).get(id=action.run_id)
        settled = _is_proof(action, answer.word) and lifecycle.settle_unknown(
            action.id, action.digest, happened=answer.word == "happened", by=None, note="The tool was asked again."
        )
        audit.record(action, ANSWERED, action.tool, answer=answer.word, detail=answer.detail, settled=settled)
        if settled:
            for batch in Batch.objects.filter(actions=action):
                settling.settle_batch(batch)
    logger.info("Run %s: asked about %s again: %s", run.short_id, action.id, answer.word)
