"""Standing permissions: what they cover and what not, the last use, revocation, and that each use is a decision."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from accounts import receipts
from accounts.models import Membership, Receipt
from accounts.schemas import Role
from approvals import evidence, grants
from approvals.grants import Wish
from approvals.models import Decision, GrantUse, StandingGrant
from approvals.schemas import MatcherIn
from runs.engine.types import Call, Effect, JsonObject, Risk, Route, ToolSpec
from runs.errors import Conflict, Invalid
from runs.models import Action, Run
from tests.accounts.together import REPETITIONS, Race, racing
from tests.approvals import factories as make
from tests.approvals.deciding import decide
from tests.approvals.factories import World, approve, reject

REFUND = "shop.issue_refund"
ARGS: JsonObject = {"order": "48213", "amount": 84.0, "reason": "Dented in transit"}
ASK = Route(outcome="ask", reason="this tool always needs a person", risk=Risk.CRITICAL, needed=1, grantable=True)
SPEC = ToolSpec(name=REFUND, description="", input_schema={}, effect=Effect.IRREVERSIBLE, version="1")


def approved(world: World, who: str = "approver", **fields: Any) -> Action:
    batch = make.make_batch(world)
    refund = make.make_refund(batch, **fields)
    decide(world, who, batch, approve(refund))
    refund.refresh_from_db()
    return refund


def wish(**fields: Any) -> Wish:
    matchers = (
        MatcherIn(argument="order", test="any"),
        MatcherIn(argument="amount", test="at_most", value=100),
        MatcherIn(argument="reason", test="one_of", value=["Dented in transit", "Lost"]),
    )
    return Wish(**{"matchers": matchers, "uses": 3, "days": 7, **fields})


def given(world: World, **fields: Any) -> StandingGrant:
    return grants.give(world.access("approver"), approved(world).id, wish(**fields))


def call(intent: str = "1:0", **args: Any) -> Call:
    return Call(intent=intent, tool_call_id="c", tool=REFUND, args={**ARGS, **args}, confidence=0.9)


def use(run: Run, made: Call | None = None, chosen: Route = ASK, spec: ToolSpec = SPEC) -> Route:
    with transaction.atomic():
        return grants.route(run, made or call(), spec, chosen)


# --- giving ----------------------------------------------------------------------------------------------------------


def test_a_grant_is_born_from_ones_own_approval(world: World) -> None:
    action = approved(world)

    grant = grants.give(world.access("approver"), action.id, wish())

    assert (grant.tool, grant.tool_version, grant.max_risk, grant.born_of) == (REFUND, "1", "critical", action)
    assert Receipt.objects.get(kind="grant.given").payload["born_of"] == str(action.id)


@pytest.mark.parametrize("who", ["second", "admin"])
def test_who_did_not_approve_it_gives_none(world: World, who: str) -> None:
    action = approved(world)
    with pytest.raises(Conflict):
        grants.give(world.access(who), action.id, wish())


def test_what_needs_two_or_was_rejected_gives_none(world: World) -> None:
    batch = make.make_batch(world)
    two, rejected = make.make_refund(batch, needed=2), make.make_refund(batch)
    decide(world, "approver", batch, approve(two), reject(rejected))
    for action in (two, rejected):
        with pytest.raises(Conflict):
            grants.give(world.access("approver"), action.id, wish())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"uses": 0}, "uses"),
        ({"uses": 1001}, "uses"),
        ({"days": 0}, "days"),
        ({"days": 91}, "days"),
        ({"matchers": (MatcherIn(argument="amount", test="at_most", value=100),)}, "matchers"),
        ({"matchers": tuple(MatcherIn(argument=name, test="any") for name in ARGS)}, "matchers"),
        ({"value_argument": "reason", "value": Decimal(5)}, "value_argument"),
        ({"value_argument": "amount", "value": None}, "value"),
        ({"value_argument": "amount", "value": Decimal("NaN")}, "value"),
        ({"value_argument": "amount", "value": Decimal(0)}, "value"),
    ],
)
def test_a_grant_without_bounds_is_refused(world: World, changes: dict[str, Any], field: str) -> None:
    action = approved(world)
    with pytest.raises(Invalid) as invalid:
        grants.give(world.access("approver"), action.id, wish(**changes))
    assert field in invalid.value.errors
    assert not StandingGrant.objects.exists()


# --- what it covers --------------------------------------------------------------------------------------------------


def test_a_use_releases_and_counts_down(world: World) -> None:
    grant = given(world)

    route = use(make.make_run(world))

    grant.refresh_from_db()
    assert (route.outcome, route.needed, grant.uses_left) == ("release", 1, 2)
    assert route.reason == "Marco Ruiz allowed calls like this one in advance, for 3 in all"


@pytest.mark.parametrize(
    "args",
    [
        {"amount": 100.01},
        {"amount": -1},
        {"amount": "lots"},
        {"amount": None},
        {"amount": True},
        {"reason": "dented in transit"},
        {"reason": "Lost\u200b"},
        {"reason": ["Lost"]},
        {"to": "somebody else"},
    ],
    ids=str,
)
def test_other_arguments_ask_a_person(world: World, args: JsonObject) -> None:
    given(world)
    assert use(make.make_run(world), call(**args)) == ASK


def test_an_argument_that_is_left_out_asks_a_person(world: World) -> None:
    given(world)
    short = Call(intent="1:0", tool_call_id="c", tool=REFUND, args={"order": "1", "reason": "Lost"})
    assert use(make.make_run(world), short) == ASK


def test_riskier_calls_other_tools_and_new_versions_ask_a_person(world: World) -> None:
    action = approved(world, risk=Risk.HIGH)
    grants.give(world.access("approver"), action.id, wish())
    run = make.make_run(world)

    high = Route(outcome="ask", reason="r", risk=Risk.HIGH, needed=1, grantable=True)
    assert use(run) == ASK, "critical is riskier than what was approved"
    assert use(run, chosen=high, spec=ToolSpec(**{**_fields(SPEC), "version": "2"})) == high
    other = Call(intent="1:0", tool_call_id="c", tool="shop.send_email", args=ARGS)
    assert use(run, other, high) == high
    assert use(run, chosen=high).outcome == "release"


def _fields(spec: ToolSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__slots__}


def test_another_agent_and_another_team_ask_a_person(world: World) -> None:
    given(world)
    stranger = type(world.agent).objects.create(team=world.team, slug="other", current=world.agent.current)
    assert use(make.make_run(world, agent=stranger)) == ASK


def test_it_ends_with_its_time_its_uses_and_its_revocation(world: World) -> None:
    over, used, revoked = given(world), given(world, uses=1), given(world)
    StandingGrant.objects.filter(id=over.id).update(expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert grants.revoke(world.access("second"), revoked.id)
    assert not grants.revoke(world.access("second"), revoked.id)

    assert use(make.make_run(world)).outcome == "release"
    assert use(make.make_run(world)) == ASK
    used.refresh_from_db()
    assert used.uses_left == 0


def test_the_sum_of_all_uses_is_bounded_to_the_cent(world: World) -> None:
    grant = given(world, uses=100, value_argument="amount", value=Decimal("0.30"))
    run = make.make_run(world)

    outcomes = [use(run, call(f"{turn}:0", amount=0.1)).outcome for turn in range(4)]

    grant.refresh_from_db()
    assert outcomes == ["release"] * 3 + ["ask"]
    assert (grant.value_left, grant.uses_left) == (Decimal(0), 97)


def test_a_giver_who_lost_the_right_gives_nothing_any_more(world: World) -> None:
    given(world)
    Membership.objects.filter(user=world.people["approver"]).update(role=Role.OPERATOR)
    assert use(make.make_run(world)) == ASK


def test_a_giver_does_not_approve_their_own_risky_run_in_advance(world: World) -> None:
    given(world)
    assert use(make.make_run(world, owner=world.people["approver"])) == ASK
    assert use(make.make_run(world, owner=world.people["second"])).outcome == "release"


def test_the_same_call_takes_one_use_however_often_it_is_routed(world: World) -> None:
    grant = given(world)
    run = make.make_run(world)
    assert [use(run).outcome for _ in range(3)] == ["release"] * 3
    grant.refresh_from_db()
    assert (grant.uses_left, GrantUse.objects.count()) == (2, 1)


def test_a_use_that_came_to_nothing_is_given_back_once(world: World) -> None:
    grant = given(world, value_argument="amount", value=Decimal(100))
    run = make.make_run(world)
    use(run)

    grants.give_back(run.id, "1:0")
    grants.give_back(run.id, "1:0")

    grant.refresh_from_db()
    assert (grant.uses_left, grant.value_left) == (3, Decimal(100))


@pytest.mark.parametrize(
    "change",
    [
        {"matchers": [{"argument": name, "test": "any"} for name in ("order", "amount", "reason")]},
        {"uses_most": 100, "uses_left": 100},
        {"uses_left": 3},
        {"expires_at": timezone.now() + dt.timedelta(days=4000)},
        {"max_risk": "critical", "value_argument": "amount", "value_most": 9, "value_left": 9},
        {"revoked_at": None, "revoked_by": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_one_that_was_widened_in_the_database_covers_nothing_and_is_found(world: World, change: dict[str, Any]) -> None:
    grant = given(world)
    use(make.make_run(world))
    if "revoked_at" in change:
        grants.revoke(world.access("approver"), grant.id)
    before = [problem for problem in evidence.verify(world.team) if "permission" in problem.detail]
    StandingGrant.objects.filter(id=grant.id).update(**change)

    assert before == []
    assert use(make.make_run(world)).outcome == "ask"
    [problem] = [problem for problem in evidence.verify(world.team) if "permission" in problem.detail]
    assert problem.kind == "changed"


def test_one_that_nobody_gave_covers_nothing(world: World) -> None:
    grant = given(world)
    Receipt.objects.filter(kind="grant.given").update(subject_id="")

    assert use(make.make_run(world)).outcome == "ask"
    assert "unrecorded" in {problem.kind for problem in evidence.verify(world.team)}
    assert grant.uses.count() == 0


# --- races -----------------------------------------------------------------------------------------------------------


def test_two_runs_cannot_both_take_the_last_use(shared_world: World, race: Race) -> None:
    """The value runs out together with the uses."""
    world = shared_world
    action = approved(world)
    access = world.access("approver")
    one, two = make.make_run(world), make.make_run(world)
    for round_ in range(REPETITIONS):
        grant = grants.give(access, action.id, wish(uses=1, value_argument="amount", value=Decimal(84)))
        made = call(f"{round_}:0")

        answers = race(*[partial(use, run, made) for run in (one, two)])

        assert not [answer for answer in answers if isinstance(answer, Exception)], answers
        assert Counter(answer.outcome for answer in answers if isinstance(answer, Route)) == {"release": 1, "ask": 1}
        grant.refresh_from_db()
        assert (grant.uses_left, grant.value_left, grant.uses.count()) == (0, Decimal(0), 1)


def test_many_runs_take_exactly_what_there_is(shared_world: World) -> None:
    world = shared_world
    action = approved(world)
    runs = [make.make_run(world) for _ in range(8)]
    with racing(len(runs)) as race:
        for round_ in range(REPETITIONS):
            grant = grants.give(world.access("approver"), action.id, wish(uses=3))

            answers = race(*[partial(use, run, call(f"{round_}:0")) for run in runs])

            said = Counter(answer.outcome for answer in answers if isinstance(answer, Route))
            assert said == {"release": 3, "ask": 5}
            grant.refresh_from_db()
            assert (grant.uses_left, grant.uses.count()) == (0, 3)


def test_revoking_against_using(shared_world: World, race: Race) -> None:
    world = shared_world
    action = approved(world)
    run = make.make_run(world)
    for round_ in range(REPETITIONS):
        grant = grants.give(world.access("approver"), action.id, wish(uses=1))
        made = call(f"{round_}:0")

        answers = race(partial(use, run, made), partial(grants.revoke, world.access("second"), grant.id))

        assert not [answer for answer in answers if isinstance(answer, Exception)], answers
        grant.refresh_from_db()
        assert grant.revoked_at
        assert grant.uses_left == 1 - grant.uses.count()


# --- the preview -----------------------------------------------------------------------------------------------------


def test_the_preview_says_what_it_would_have_covered(world: World) -> None:
    action = approved(world)
    batch = make.make_batch(world)
    small, large = make.make_refund(batch, amount=50), make.make_refund(batch, amount=500)
    said_no = make.make_refund(batch, amount=60)
    decide(world, "second", batch, approve(small), approve(large), reject(said_no))
    make.make_refund(batch, amount=5, needed=2)

    seen = grants.preview(action, wish(value_argument="amount"))

    assert {each.id for each in seen.covered} == {action.id, small.id, said_no.id}
    assert (seen.asked, seen.rejected, seen.value) == (4, 1, Decimal(194))


# --- pages -----------------------------------------------------------------------------------------------------------
FORM = {
    "test-order": "any", "value-order": "", "test-amount": "at_most", "value-amount": "100", "test-reason": "equals",
    "value-reason": "Dented in transit", "uses": "3", "days": "7", "value_argument": "amount", "value": "250",
}  # fmt: skip


def test_giving_on_the_page_without_scripts(world: World) -> None:
    action = approved(world)
    client = world.client("approver")
    url = f"/approvals/actions/{action.id}/allow/"
    assert "is exactly" in client.get(url).content.decode()

    looked = client.post(url, {**FORM, "submit": "preview"})
    assert (looked.status_code, StandingGrant.objects.count()) == (200, 0)
    assert "would have covered 1 of 1 action" in looked.content.decode()
    assert client.post(url, {**FORM, "submit": "give"}).status_code == 302

    grant = StandingGrant.objects.get()
    assert (grant.uses_left, grant.value_left, grant.value_argument) == (3, Decimal(250), "amount")
    page = client.get("/approvals/grants/").content.decode()
    assert "is at most 100" in page
    assert client.post(f"/approvals/grants/{grant.id}/revoke").status_code == 302
    assert "revoked by Marco Ruiz" in client.get("/approvals/grants/").content.decode()


def test_a_value_that_limits_no_argument_is_refused_on_the_page(world: World) -> None:
    form = {**FORM, "value_argument": "", "submit": "give"}
    response = world.client("approver").post(f"/approvals/actions/{approved(world).id}/allow/", form)
    assert (response.status_code, StandingGrant.objects.count()) == (422, 0)
    assert "Say which argument adds up to this value." in response.content.decode()


def test_a_wrong_form_keeps_what_was_typed(world: World) -> None:
    action = approved(world)
    form = {**FORM, "value-amount": "lots", "uses": "many", "submit": "give"}
    response = world.client("approver").post(f"/approvals/actions/{action.id}/allow/", form)

    page = response.content.decode()
    assert response.status_code == 422
    assert "Write a number." in page
    assert 'value="many"' in page
    assert "lots" in page


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("operator", 403), ("outsider", 404), ("anonymous", 302)])
def test_who_may(world: World, who: str, status: int) -> None:
    grant = given(world)
    client = world.client(who)
    give = f"/approvals/actions/{grant.born_of_id}/allow/"
    assert client.post(give, {**FORM, "submit": "give"}).status_code == status
    assert client.post(f"/approvals/grants/{grant.id}/revoke").status_code == status
    assert client.post(f"/approvals/grants/{make.missing_id()}/revoke").status_code == (302 if status == 302 else 404)
    assert StandingGrant.objects.get().revoked_at is None


def test_a_card_offers_it_to_who_approved(world: World) -> None:
    action = approved(world)
    for who, offered in (("approver", True), ("second", False), ("viewer", False)):
        page = world.client(who).get(f"/approvals/{action.batch_id}/").content.decode()
        assert (f"/approvals/actions/{action.id}/allow/" in page) is offered


def test_get_gives_and_revokes_nothing(world: World) -> None:
    grant = given(world)
    assert world.client("approver").get(f"/approvals/grants/{grant.id}/revoke").status_code == 405
    assert receipts.verify(world.team) == []
    assert Decision.objects.filter(channel="grant").count() == 0
