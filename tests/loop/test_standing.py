"""What a person allowed in advance: released once, wherever a worker dies; never in a dry run; nothing else with it."""

from __future__ import annotations

import pytest

from runs.engine.fakes import calls, says
from runs.engine.ports import PlanRefused
from runs.engine.types import ActionStatus, Mode
from tests.loop.helpers import WAITS, World, assert_sound, use, world

BATCH, DRY_RUN, INTERACTIVE = Mode.BATCH, Mode.DRY_RUN, Mode.INTERACTIVE
REFUND = "shop.refund"


def allowed(*names: tuple[str, str], mode: Mode = BATCH, uses: int = 1) -> World:
    done = world(calls(*(use(name, id=id_) for name, id_ in names)), says("Waiting."), says("Done."), mode=mode)
    done.verdicts.allowed = {REFUND: uses}
    return done


@pytest.mark.parametrize("mode", [BATCH, INTERACTIVE])
def test_what_is_covered_runs_at_once(mode: Mode) -> None:
    done = allowed(("refund", "1"), mode=mode)

    assert done.ended().status.value == "completed"
    assert done.effects() == ["shop.refund(1)"]
    assert done.verdicts.batches == {}
    assert_sound(done)


@pytest.mark.parametrize("mode", [BATCH, INTERACTIVE])
def test_what_is_not_covered_holds_what_is(mode: Mode) -> None:
    done = allowed(("refund", "1"), ("refund", "2"), mode=mode)

    assert done.advance() == WAITS
    assert done.effects() == []
    assert [done.status(intent) for intent in ("1:0", "1:1")] == [ActionStatus.APPROVED, ActionStatus.PENDING]
    done.to_the_end()
    assert sorted(done.effects()) == ["shop.refund(1)", "shop.refund(2)"]
    assert_sound(done)


def test_a_dry_run_uses_nothing_up() -> None:
    done = allowed(("refund", "1"), mode=DRY_RUN)
    done.ended()

    assert (done.effects(), done.verdicts.allowed) == ([], {REFUND: 1})


def test_a_call_that_the_tool_would_refuse_gives_it_back() -> None:
    done = allowed(("refund", "1"))
    done.tool("refund").refuses_to_plan = PlanRefused("nothing is left")
    done.ended()

    assert done.verdicts.allowed == {REFUND: 1}


@pytest.mark.parametrize("after", range(1, 9))
def test_a_crash_at_any_place_uses_one_and_acts_once(after: int) -> None:
    done = allowed(("refund", "1"), uses=2)
    done.fuse.left = after
    done.to_the_end()

    assert done.effects() == ["shop.refund(1)"]
    assert done.verdicts.allowed == {REFUND: 1}
    assert_sound(done)
