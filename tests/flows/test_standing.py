"""A standing permission over whole runs: taken once, written down as a decision, stopped when it is taken back."""

from __future__ import annotations

import pytest

from accounts.access import Access
from approvals import evidence, grants
from approvals.grants import Wish
from approvals.models import Decision, GrantUse, StandingGrant
from approvals.schemas import MatcherIn
from runs.engine.types import Mode
from runs.models import Action, Batch, Run
from tests.flows.conftest import Model, applied, assert_sound, decide
from tests.flows.shop import LocalShop
from tests.running import REFUND, advance, launch, tool, uses

REFUNDS = tool(REFUND, order="48213", amount=10.0, reason="dented in transit")
OTHER = tool(REFUND, order="48166", amount=11.0, reason="dented in transit")


@pytest.fixture
def grant(crew: Access, shop: LocalShop, model: Model) -> StandingGrant:
    """Born from a first run whose refund was approved: the same arguments, three times."""
    model.says(uses(REFUNDS), "One refund waits.", "Done.")
    run = advance(launch(crew))
    assert applied(decide(crew, run))
    assert advance(run).status == "completed"
    action = Action.objects.get(run=run)
    matchers = tuple(MatcherIn(argument=name, test="equals", value=value) for name, value in action.args.items())
    return grants.give(crew, action.id, Wish(matchers=matchers, uses=3, days=1))


@pytest.mark.parametrize("mode", [Mode.BATCH, Mode.INTERACTIVE])
def test_a_covered_call_runs_without_asking(
    crew: Access, shop: LocalShop, model: Model, grant: StandingGrant, mode: Mode
) -> None:
    model.says(uses(REFUNDS), "Done.", "Done.")
    run = advance(launch(crew, mode))

    assert run.status == "completed"
    assert shop.effects() == ["issue_refund"] * 2
    action = Action.objects.get(run=run)
    assert (action.status, action.needed, action.held, action.batch) == ("succeeded", 1, False, None)
    assert "allowed calls like this one in advance" in action.route_reason
    said = Decision.objects.get(action=action)
    assert (said.actor, said.verdict, said.channel, said.shown_digest) == (crew.user, "approve", "grant", action.digest)
    assert GrantUse.objects.get(action=action).grant == grant
    assert evidence.verify(crew.team) == []
    assert_sound(run)


def test_another_amount_asks_and_holds_what_is_covered(
    crew: Access, shop: LocalShop, model: Model, grant: StandingGrant
) -> None:
    model.says(uses(REFUNDS, OTHER), "They wait.", "Done.")
    run = advance(launch(crew))

    assert run.status == "waiting"
    assert shop.effects() == ["issue_refund"], "nothing of this run while one of its turn waits"
    covered, asked = Action.objects.filter(run=run).order_by("position")
    assert (covered.status, covered.held, asked.status) == ("approved", True, "pending")
    assert applied(decide(crew, run))
    assert advance(run).status == "completed"
    assert shop.effects() == ["issue_refund"] * 3
    assert_sound(run)


def test_a_dry_run_uses_nothing_up(crew: Access, shop: LocalShop, model: Model, grant: StandingGrant) -> None:
    model.says(uses(REFUNDS), "Done.", "Done.")
    assert advance(launch(crew, Mode.DRY_RUN)).status == "dry_run_ready"

    grant.refresh_from_db()
    assert (grant.uses_left, GrantUse.objects.count()) == (3, 0)


def test_a_call_that_the_tool_would_refuse_gives_its_use_back(
    crew: Access, shop: LocalShop, model: Model, grant: StandingGrant
) -> None:
    shop.change('UPDATE orders SET refunded_cents = total_cents WHERE "order" = ?', "48213")
    model.says(uses(REFUNDS), "Done.", "Done.")
    run = advance(launch(crew))

    grant.refresh_from_db()
    assert (run.status, grant.uses_left, GrantUse.objects.count()) == ("completed", 3, 0)


def test_taken_back_between_release_and_effect_nothing_runs(
    crew: Access, shop: LocalShop, model: Model, grant: StandingGrant
) -> None:
    """Released and held behind another action, then revoked while people decided on that one."""
    model.says(uses(REFUNDS, OTHER), "They wait.", "Done.")
    run = advance(launch(crew))
    assert grants.revoke(crew, grant.id)
    assert applied(decide(crew, run))
    run = advance(run)

    covered, asked = Action.objects.filter(run=run).order_by("position")
    assert (covered.status, asked.status) == ("revoked", "succeeded")
    assert covered.note == "the standing permission for it was taken back"
    assert shop.effects() == ["issue_refund"] * 2
    assert evidence.verify(crew.team) == []


def test_nothing_of_it_stands_open_in_the_inbox(
    crew: Access, shop: LocalShop, model: Model, grant: StandingGrant
) -> None:
    model.says(uses(REFUNDS), "Done.", "Done.")
    run: Run = advance(launch(crew))
    assert not Batch.objects.filter(run=run).exists()
