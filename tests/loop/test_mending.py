"""Several malformed calls in one turn: each is mended, and each has its one result."""

from __future__ import annotations

from runs.engine import recovery
from runs.engine.fakes import calls, says
from runs.engine.types import ActionStatus, StepStatus, StopReason
from tests.loop.helpers import WAITS, World, assert_sound, use, world
from tests.loop.test_recovery import ASKED, BAD, GOOD, QUESTION, UNKNOWN


def test_every_malformed_call_of_a_turn_is_mended() -> None:
    """Each is asked for alone; those beside them are made as they are, and each has its one result."""
    turn = calls(BAD, use("look"), ("shop__mail", {}), GOOD, UNKNOWN)
    done = world(calls(BAD), calls(BAD), turn, says("Done."))
    done.llm.repair = lambda request: calls((str(request.tools[0]["name"]), {"id": "7"}))

    assert done.to_the_end().stop_reason is StopReason.DONE

    assert done.keys("repair:") == ["repair:3", "repair:3:2", "repair:3:4"]
    assert sorted(done.effects()) == ["shop.mail(7)", "shop.note(1)", "shop.note(7)"]
    contents = done.contents(3)
    assert len(contents) == 5
    assert [number for number, text in enumerate(contents) if "could not be used" in text] == [0, 2, 4]
    assert [result["is_error"] for result in done.results(3)] == [False] * 5
    assert "shop.mail: The arguments do not fit" in done.step("malformed-turn:3").summary
    assert_sound(done)


def test_a_crash_mends_each_call_once() -> None:
    for fuse in range(6, 24):
        done = world(calls(BAD), calls(BAD), calls(BAD, ("shop__mail", {})), says("Done."))
        done.llm.repair = lambda request: calls((str(request.tools[0]["name"]), {"id": "7"}))
        done.fuse.left = fuse
        assert done.to_the_end().stop_reason is StopReason.DONE
        assert sorted(done.effects()) == ["shop.mail(7)", "shop.note(7)"]
        assert_sound(done)


def stuck_twice() -> World:
    return world(calls(BAD), calls(BAD), calls(BAD, GOOD, ("shop__look", {})), says("Done."))


def test_all_that_is_missing_is_asked_at_once_and_answered_one_by_one() -> None:
    done = stuck_twice()

    assert done.advance() == WAITS
    assert list(done.verdicts.questions) == [ASKED, "malformed:3:2"]
    assert done.keys("ask:") == [f"ask:{ASKED}", "ask:malformed:3:2"]
    assert [len(each.tried) for each in done.verdicts.questions.values()] == [3, 3]
    done.verdicts.answer("malformed:3:2", args={"id": "9"})
    assert done.advance() == WAITS
    assert done.effects() == []
    done.verdicts.answer(ASKED, "Leave it.")

    assert done.to_the_end().stop_reason is StopReason.DONE
    assert done.effects() == ["shop.note(1)"]
    first, _, third = done.contents(3)
    assert first.endswith("Dana Okafor says: Leave it.")
    assert 'corrected your call to {"id":"9"}' in third
    assert [result["is_error"] for result in done.results(3)] == [True, False, False]
    assert_sound(done)


def test_who_stops_the_run_stops_it_for_every_call() -> None:
    done = stuck_twice()
    assert done.advance() == WAITS
    done.verdicts.decide(ActionStatus.REJECTED, QUESTION)

    end = done.ended()

    assert end.stop_reason is StopReason.ESCALATION_DECLINED
    assert [done.step(f"tool:3:{number}").status for number in (0, 2)] == [StepStatus.ERROR] * 2
    assert done.step("tool:3:2").output == recovery.ENDED
