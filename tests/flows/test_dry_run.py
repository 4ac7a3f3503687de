"""A dry run, then its report carried out: what may run alone at once, the rest after people, the stale ones not."""

from __future__ import annotations

import datetime as dt
from functools import partial

import pytest
import time_machine
from django.conf import LazySettings
from django.utils import timezone

from accounts.access import Access, MissingRight
from accounts.models import Receipt
from approvals import evidence
from runs import commands, lifecycle, staleness
from runs.asked import Chosen
from runs.engine.ports import ToolUnavailable
from runs.engine.types import Mode
from runs.errors import Conflict
from runs.executing import Pick, Picked, execute, plan_again, take_back
from runs.models import Action, Run
from tests.accounts.together import REPETITIONS, Race
from tests.flows.conftest import Model, applied, assert_sound, decide, member
from tests.flows.shop import LocalShop
from tests.running import NOTE, READ, REFUND, advance, launch, tool, uses

NOTES = tool(NOTE, customer="C-20871", changes={"notes": "left for a person"})
REFUNDS = tool(REFUND, order="48213", amount=84.0, reason="dented in transit")
OTHER = tool(REFUND, order="48166", amount=20.0, reason="late")


@pytest.fixture
def ready(crew: Access, shop: LocalShop, model: Model) -> Run:
    """A dry run that planned a note, which may run alone, and two refunds, which may not."""
    model.says(uses(tool(READ, order="48213")), uses(NOTES, REFUNDS, OTHER), "This is what I would do.")
    run = advance(launch(crew, Mode.DRY_RUN))
    assert (run.status, shop.effects()) == ("dry_run_ready", [])
    return run


def proposals(run: Run) -> list[Action]:
    return staleness.proposals(Run.objects.get(id=run.id))


def picks(*actions: Action) -> list[Pick]:
    return [Pick(action=action.id, digest=action.digest) for action in actions]


def outcomes(said: list[Picked]) -> list[str]:
    return [each.outcome for each in said]


def statuses(run: Run) -> list[str]:
    return list(run.actions.exclude(status="superseded").order_by("position").values_list("status", flat=True))


def raise_version(shop: LocalShop, order: str = "48213") -> None:
    shop.change('UPDATE orders SET version = version + 1, refunded_cents = 1000 WHERE "order" = ?', order)


def test_all_of_it_is_carried_out_as_the_policy_says(
    crew: Access, shop: LocalShop, model: Model, ready: Run, rings: list[str]
) -> None:
    calls = len(model.calls)
    rings.clear()
    said = execute(crew, ready.id, picks(*proposals(ready)))
    assert [(each.outcome, each.detail) for each in said] == [
        ("applied", "Runs at once."),
        ("applied", "Sent to the inbox: a person decides."),
        ("applied", "Sent to the inbox: a person decides."),
    ]
    assert rings == [str(ready.id)]

    run = advance(ready)
    assert (run.status, shop.effects()) == ("waiting", ["update_customer"])
    assert applied(decide(crew, run))
    run = advance(run)
    assert (run.status, run.stop_reason, run.result) == ("completed", "done", "This is what I would do.")
    assert shop.effects() == ["update_customer", "issue_refund", "issue_refund"]
    assert statuses(run) == ["succeeded"] * 3
    assert len(model.calls) == calls, "no model is asked"
    assert Receipt.objects.filter(kind="run.execute").count() == 1
    assert evidence.verify(crew.team) == []
    assert_sound(run)


def test_some_now_and_some_later(crew: Access, shop: LocalShop, ready: Run) -> None:
    note, refund, other = proposals(ready)
    execute(crew, ready.id, picks(note))
    run = advance(ready)
    assert (run.status, shop.effects()) == ("dry_run_ready", ["update_customer"])

    again = execute(crew, run.id, picks(note, refund))
    assert outcomes(again) == ["already_decided", "applied"]
    run = advance(run)
    assert applied(decide(crew, run))
    run = advance(run)
    assert (run.status, shop.effects()) == ("dry_run_ready", ["update_customer", "issue_refund"])
    assert [action.id for action in proposals(run)] == [other.id]
    assert_sound(run)


def test_what_changed_meanwhile_is_refused_with_what_changed(crew: Access, shop: LocalShop, ready: Run) -> None:
    raise_version(shop)
    note, refund, other = proposals(ready)

    said = execute(crew, ready.id, picks(note, refund, other))

    assert outcomes(said) == ["applied", "stale", "applied"]
    assert "order_version was 1, is now 2" in said[1].detail
    assert "refunded was '0.00', is now '10.00'" in said[1].detail
    run = advance(ready)
    assert applied(decide(crew, run))
    run = advance(run)
    assert [entry["arguments"].get("order") for entry in shop.store.ledger()] == [None, "48166"]
    assert run.status == "dry_run_ready"


def test_what_changes_between_the_choice_and_the_effect_does_not_run(crew: Access, shop: LocalShop, ready: Run) -> None:
    note, *_ = proposals(ready)
    assert outcomes(execute(crew, ready.id, picks(note))) == ["applied"]
    shop.change("UPDATE customers SET version = version + 1 WHERE customer = 'C-20871'")
    run = advance(ready)
    note.refresh_from_db()
    assert (note.status, shop.effects()) == ("stale", [])
    assert "customer_version" in note.note
    assert run.status == "dry_run_ready"


def test_a_stale_one_is_planned_again_and_then_runs(crew: Access, shop: LocalShop, ready: Run) -> None:
    raise_version(shop)
    _, refund, _ = proposals(ready)
    [said] = plan_again(crew, ready.id, [refund.id])
    assert said.outcome == "applied"
    _, new, _ = proposals(ready)
    assert (new.id, new.supersedes_id, new.args, new.digest) == (said.action, refund.id, refund.args, refund.digest)
    assert new.preconditions["order_version"] == 2
    assert outcomes(execute(crew, ready.id, picks(refund))) == ["stale"], "the old one is not what is shown now"
    assert outcomes(execute(crew, ready.id, picks(new))) == ["applied"]
    run = advance(ready)
    assert applied(decide(crew, run))
    advance(run)
    assert shop.effects() == ["issue_refund"]
    assert evidence.verify(crew.team) == []


def test_what_the_tool_refuses_now_cannot_be_planned_again(crew: Access, shop: LocalShop, ready: Run) -> None:
    shop.change('UPDATE orders SET refunded_cents = total_cents WHERE "order" = ?', "48213")
    _, refund, _ = proposals(ready)
    [said] = plan_again(crew, ready.id, [refund.id])
    assert (said.outcome, "can't be planned now" in said.detail) == ("stale", True)
    [again] = execute(crew, ready.id, picks(refund))
    assert (again.outcome, "would refuse it now" in again.detail) == ("stale", True)


def test_it_is_looked_at_each_minute(crew: Access, shop: LocalShop, ready: Run) -> None:
    assert (staleness.check_due(), staleness.check_due()) == (1, 0)
    raise_version(shop)
    assert staleness.check_due() == 0
    with time_machine.travel(timezone.now() + dt.timedelta(seconds=61), tick=True):
        assert staleness.check_due() == 1
    assert ["order_version" in action.changed for action in proposals(ready)] == [False, True, False]
    raise_back = 'UPDATE orders SET version = 1, refunded_cents = 0 WHERE "order" = ?'
    shop.change(raise_back, "48213")
    with time_machine.travel(timezone.now() + dt.timedelta(seconds=130), tick=True):
        staleness.check_due()
        assert [action.changed for action in proposals(ready)] == ["", "", ""]
    with time_machine.travel(timezone.now() + dt.timedelta(hours=25), tick=True):
        assert staleness.check_due() == 0, "a report that is over is left alone"
        assert set(outcomes(execute(crew, ready.id, picks(*proposals(ready))))) == {"expired"}


def test_a_tool_that_is_away_says_nothing_new(
    crew: Access, shop: LocalShop, ready: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ToolUnavailable("away")

    monkeypatch.setattr("tests.flows.shop.LocalTool.plan", away)
    note, *_ = proposals(ready)
    assert outcomes(execute(crew, ready.id, picks(note))) == ["applied"]
    advance(ready)
    note.refresh_from_db()
    assert (note.status, shop.effects()) == ("stale", []), "and what can't be checked does not run"


def test_what_is_refused(crew: Access, shop: LocalShop, model: Model, ready: Run) -> None:
    note, *_ = proposals(ready)
    missing = Pick(action=ready.id, digest="x")
    wrong = Pick(action=note.id, digest="x")
    assert outcomes(execute(crew, ready.id, [missing, wrong, wrong])) == ["invalid", "invalid", "invalid"]
    assert outcomes(execute(crew, ready.id, [wrong])) == ["stale"]
    with pytest.raises(MissingRight):
        execute(member(crew, "noor", "viewer"), ready.id, picks(note))
    assert not Chosen.objects.exists()
    model.says("Nothing to do.")
    with pytest.raises(Conflict, match="Only a dry run"):
        execute(crew, advance(launch(crew)).id, picks(note))
    execute(crew, ready.id, picks(note))
    with pytest.raises(Conflict, match="queued"):
        execute(crew, ready.id, picks(note))


def test_a_crash_between_the_effects_repeats_none(crew: Access, shop: LocalShop, ready: Run) -> None:
    note, refund, _ = proposals(ready)
    execute(crew, ready.id, picks(note, refund))
    run = advance(ready)
    Run.objects.filter(id=run.id).update(status="queued", waiting_since=None)
    run = advance(run)
    assert (run.status, shop.effects()) == ("waiting", ["update_customer"])


def test_what_was_chosen_meanwhile_is_not_planned_again(
    crew: Access, ready: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, *_rest = proposals(ready)
    plans_now = staleness.plans_now

    def chosen_meanwhile(run: Run, wanted: list[Action]) -> object:
        execute(crew, ready.id, picks(note))
        return plans_now(run, wanted)

    monkeypatch.setattr(staleness, "plans_now", chosen_meanwhile)
    with pytest.raises(Conflict):
        plan_again(crew, ready.id, [note.id])
    assert not ready.actions.filter(status="superseded").exists()


def test_two_people_carry_out_the_same_report_while_a_third_plans_it_again(
    crew: Access, shop: LocalShop, ready: Run, race: Race
) -> None:
    """What is carried out is the plan that was chosen: a new one comes before the choice, or not at all."""
    back = {name: getattr(ready, name) for name in ("status", "stop_reason", "stop_detail", "ended_at")}
    for _ in range(REPETITIONS):
        note, *_rest = proposals(ready)
        choose = partial(execute, crew, ready.id, picks(note))

        first, second, again = race(choose, choose, partial(plan_again, crew, ready.id, [note.id]))

        assert all(isinstance(answer, list | Conflict) for answer in (first, second, again)), (first, second, again)
        said = sorted(outcomes(answer)[0] for answer in (first, second) if isinstance(answer, list))
        newest = ready.actions.exclude(status="superseded").get(intent=note.intent)
        assert Chosen.objects.count() == said.count("applied") == (newest.id == note.id)
        Chosen.objects.all().delete()
        Run.objects.filter(id=ready.id).update(**back)
    note, *_rest = proposals(ready)
    execute(crew, ready.id, picks(note))
    advance(ready)
    assert shop.effects() == ["update_customer"]


# --- taking a choice back --------------------------------------------------------------------------------------------


@pytest.fixture
def window(settings: LazySettings) -> None:
    settings.AGENTSITE_UNDO_SECONDS = 10


def in_(seconds: float) -> time_machine.travel:
    return time_machine.travel(timezone.now() + dt.timedelta(seconds=seconds), tick=True)


def test_what_runs_at_once_waits_for_its_window(
    crew: Access, shop: LocalShop, ready: Run, window: None, rings: list[str]
) -> None:
    rings.clear()
    execute(crew, ready.id, picks(*proposals(ready)))
    assert rings == [], "the sweeper rings in time"

    assert (advance(ready).status, shop.effects()) == ("queued", [])
    with in_(11):
        run = advance(ready)
    assert (run.status, shop.effects()) == ("waiting", ["update_customer"])


def test_a_choice_is_taken_back_and_made_again(crew: Access, shop: LocalShop, ready: Run, window: None) -> None:
    before = {name: getattr(ready, name) for name in ("stop_reason", "stop_detail", "ended_at", "result")}
    note, refund, _other = proposals(ready)
    execute(crew, ready.id, picks(note, refund))
    assert Run.objects.get(id=ready.id).ended_at is None

    assert take_back(crew, ready.id) == 2

    run = Run.objects.get(id=ready.id)
    assert (run.status, run.due_at, shop.effects()) == ("dry_run_ready", None, [])
    assert {name: getattr(run, name) for name in before} == before
    assert [action.id for action in proposals(run)][:2] == [note.id, refund.id]
    assert Receipt.objects.filter(kind="run.execute_taken_back", subject_id=str(run.id)).count() == 1
    with pytest.raises(Conflict, match="can't be taken back any more"):
        take_back(crew, ready.id)

    execute(crew, ready.id, picks(note))
    with in_(11):
        run = advance(ready)
    assert (run.status, shop.effects()) == ("dry_run_ready", ["update_customer"]), "what was taken back stays so"
    assert evidence.verify(crew.team) == []
    assert_sound(run)


def test_what_has_begun_is_not_taken_back(crew: Access, shop: LocalShop, ready: Run, window: None) -> None:
    execute(crew, ready.id, picks(*proposals(ready)))
    with in_(11):
        with pytest.raises(Conflict):
            take_back(crew, ready.id)
        run = advance(ready)
        with pytest.raises(Conflict, match="the run is waiting"):
            take_back(crew, run.id)
    assert shop.effects() == ["update_customer"]


def test_a_run_that_sleeps_for_another_reason_is_not_taken_back(crew: Access, ready: Run, window: None) -> None:
    """It has begun, and waits for a tool or a model that was away."""
    execute(crew, ready.id, picks(*proposals(ready)))
    Run.objects.filter(id=ready.id).update(due_at=timezone.now() + dt.timedelta(seconds=60))

    with pytest.raises(Conflict):
        take_back(crew, ready.id)


def test_a_tool_s_own_window_and_none_for_what_people_are_asked(crew: Access, ready: Run, window: None) -> None:
    note, refund, _other = proposals(ready)
    execute(crew, ready.id, picks(refund))
    assert Run.objects.get(id=ready.id).due_at is None, "an approval has a window of its own"
    with pytest.raises(Conflict):
        take_back(crew, ready.id)
    assert note.needed == 0


def test_a_choice_of_a_dry_run_waits_again_after_a_pause(
    crew: Access, shop: LocalShop, ready: Run, window: None
) -> None:
    execute(crew, ready.id, picks(*proposals(ready)))
    commands.pause(crew, ready.id)
    with in_(60):
        run = commands.resume(crew, ready.id)
        assert run.due_at == Chosen.objects.get(run=run).begins_at
        assert (advance(run).status, shop.effects()) == ("queued", [])
        assert take_back(crew, run.id) == 3
        run.refresh_from_db()
    assert (run.status, shop.effects()) == ("dry_run_ready", [])


def test_taking_back_meets_the_worker(crew: Access, ready: Run, window: None, race: Race) -> None:
    back = {name: getattr(ready, name) for name in ("status", "stop_reason", "ended_at", "lease_owner", "due_at")}
    for _ in range(REPETITIONS):
        note, *_rest = proposals(ready)
        execute(crew, ready.id, picks(note))
        soon = timezone.now() + dt.timedelta(milliseconds=1)
        Run.objects.filter(id=ready.id).update(due_at=soon)
        Chosen.objects.filter(run=ready, taken_back_at__isnull=True).update(begins_at=soon)

        taken, begun = race(partial(take_back, crew, ready.id), partial(lifecycle.claim_lease, ready.id, "worker"))

        assert taken == 1 or isinstance(taken, Conflict), taken
        assert not (taken == 1 and begun), "it was taken back, and begins"
        Chosen.objects.filter(run=ready).update(taken_back_at=timezone.now())
        Run.objects.filter(id=ready.id).update(**back)


@pytest.mark.parametrize(("role", "may"), [("operator", True), ("viewer", False)])
def test_who_may_take_back(crew: Access, ready: Run, window: None, role: str, may: bool) -> None:
    execute(crew, ready.id, picks(*proposals(ready)))
    access = member(crew, "somebody", role)
    if may:
        assert take_back(access, ready.id) == 3
    else:
        with pytest.raises(MissingRight):
            take_back(access, ready.id)
