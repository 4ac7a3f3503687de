"""After a dry run: carrying out what people chose of it. No model is called.

What may run alone runs first; then the rest is asked for at once, and carried out as decided (invariant 5 holds so).
"""

from __future__ import annotations

from runs.engine.acting import Hands
from runs.engine.halting import Park, Stop
from runs.engine.ports import Journal, Verdicts
from runs.engine.types import Action, ActionStatus, Finished, Outcome, RunStatus, StopReason

WHY = "A person chose these from the report of a dry run. Each is checked again just before it runs."


def carry_out_chosen(hands: Hands, journal: Journal, verdicts: Verdicts) -> Outcome:
    try:
        for key, actions in verdicts.chosen():
            _carry_out(hands, verdicts, key, list(actions))
    except Stop as stop:
        return Finished(status=stop.status, stop_reason=stop.reason, stop_detail=stop.detail)
    except Park as park:
        return park.parked
    report = journal.recorded("result")
    return Finished(
        status=RunStatus.DRY_RUN_READY if verdicts.proposals_left() else RunStatus.COMPLETED,
        stop_reason=StopReason.DONE,
        stop_detail="What was chosen of the dry run was carried out.",
        result=str(report.output or "") if report else "",
    )


def _carry_out(hands: Hands, verdicts: Verdicts, key: str, actions: list[Action]) -> None:
    asked_before = verdicts.asked(f"{key}:ask")
    if asked_before is None:
        to_ask = [action for action in actions if action.status is ActionStatus.PENDING]
    else:
        asked = {action.intent for action in asked_before}
        to_ask = [action for action in actions if action.intent in asked]
    waiting = {action.intent for action in to_ask}
    hands.carry_out_plan(key, [action for action in actions if action.intent not in waiting])
    if to_ask:
        if asked_before is None:
            verdicts.ask(f"{key}:ask", to_ask, WHY)
        hands.carry_out_plan(f"{key}:ask", list(hands.asking.await_verdicts(f"{key}:ask")))
