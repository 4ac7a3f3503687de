"""Circuit breakers that all workers share, and the page that shows them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts.ids import new_id
from runs import breakers
from runs.breakers import DbBreakers
from runs.engine.breakers import COOLDOWN_S, FAILURES, State
from runs.models import Breaker
from tests.accounts.together import together
from tests.runs.factories import World, text_of

SHOP = "tool:shop"


@pytest.fixture(autouse=True)
def another_process() -> Iterator[None]:
    """What a process remembers must not outlive a test."""
    breakers.forget()
    yield
    breakers.forget()


@pytest.fixture
def here(world: World) -> DbBreakers:
    return DbBreakers(world.team.id)


def break_it(here: DbBreakers, name: str = SHOP) -> None:
    for _ in range(FAILURES):
        here.failed(name, "no answer within 30 s")


def pass_cooldown() -> None:
    Breaker.objects.update(until=timezone.now())
    breakers.forget()


def test_failures_are_counted_together_and_success_forgets_them(world: World, here: DbBreakers) -> None:
    other = DbBreakers(world.team.id)
    for _ in range(FAILURES - 1):
        here.failed(SHOP, "late")
    other.worked(SHOP)
    other.failed(SHOP, "late")
    breakers.forget()

    assert here.peek(SHOP) is None
    assert Breaker.objects.get().failures == 1


def test_an_open_breaker_refuses_until_its_time_then_one_probe_decides(here: DbBreakers) -> None:
    break_it(here)
    breakers.forget()

    refused = here.enter(SHOP)
    assert refused is not None
    assert refused.until > timezone.now() + dt.timedelta(seconds=COOLDOWN_S - 5)
    assert "no answer within 30 s" in refused.words

    pass_cooldown()
    assert here.peek(SHOP) is None
    assert here.enter(SHOP) is None
    assert here.enter(SHOP) is not None, "beside the probe nothing goes through"
    here.failed(SHOP, "late")
    assert Breaker.objects.get().opened == 2

    pass_cooldown()
    assert here.enter(SHOP) is None
    here.worked(SHOP)
    assert Breaker.objects.get().state == State.CLOSED
    assert here.enter(SHOP) is None


def test_a_team_sees_nothing_of_anothers_servers_and_all_share_the_models(world: World, here: DbBreakers) -> None:
    elsewhere = DbBreakers(new_id())
    break_it(here)
    break_it(here, "model:claude-sonnet-5-5")

    assert elsewhere.peek(SHOP) is None
    assert elsewhere.peek("model:claude-sonnet-5-5") is not None


def test_closed_costs_no_query_for_a_second(
    here: DbBreakers, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    here.peek(SHOP)
    with django_assert_num_queries(0):
        for _ in range(50):
            assert here.enter(SHOP) is None
            here.worked(SHOP)


def test_of_many_at_once_one_is_the_probe(transactional_db: None) -> None:
    here = DbBreakers(new_id())
    break_it(here)
    pass_cooldown()

    said = together([lambda: here.enter(SHOP)] * 8)

    assert [each for each in said if isinstance(each, Exception)] == []
    assert said.count(None) == 1, "exactly one was let through"


def test_failures_at_the_same_moment_are_all_counted(transactional_db: None) -> None:
    here = DbBreakers(new_id())

    together([lambda: here.failed(SHOP, "late")] * (FAILURES - 1))

    row = Breaker.objects.get()
    assert (row.state, row.failures) == (State.CLOSED, FAILURES - 1)


# --- the page --------------------------------------------------------------------------------------------------------
PAGE = "/agents/refund-desk/"


def test_the_agents_page_shows_what_it_depends_on(world: World, here: DbBreakers) -> None:
    shown = text_of(world.client("viewer").get(PAGE))
    assert "Answers" in shown
    assert "Away until" not in shown

    break_it(here)
    before = shown.index("Connections") > shown.index("Usual mode")
    shown = text_of(world.client("viewer").get(PAGE))

    assert before
    assert shown.index("Connections") < shown.index("Usual mode"), "what is away comes first"
    assert "Away until" in shown
    assert "no answer within 30 s" in shown
    assert "Try at the next call" not in shown
    assert "Try at the next call" in text_of(world.client("operator").get(PAGE))


def test_a_person_lets_the_next_call_through(world: World, here: DbBreakers) -> None:
    break_it(here)

    response = world.client("operator").post(f"{PAGE}connections", {"name": SHOP})

    assert response.status_code == 302
    assert "Tried at the next call" in text_of(world.client("viewer").get(PAGE))
    assert here.enter(SHOP) is None
    assert "Being tried" in text_of(world.client("viewer").get(PAGE))


@pytest.mark.parametrize("name", ["", "tool:elsewhere", "model:gpt", "x" * 999])
def test_only_a_connection_of_the_agent_can_be_tried(world: World, here: DbBreakers, name: str) -> None:
    break_it(here, "tool:elsewhere")

    assert world.client("admin").post(f"{PAGE}connections", {"name": name}).status_code == 302
    assert here.peek("tool:elsewhere") is not None


@pytest.mark.parametrize(("who", "status"), [("viewer", 403), ("outsider", 404), ("anonymous", 302)])
def test_who_may_not(world: World, here: DbBreakers, who: str, status: int) -> None:
    break_it(here)

    assert world.client(who).post(f"{PAGE}connections", {"name": SHOP}).status_code == status
    breakers.forget()
    assert here.peek(SHOP) is not None
    assert world.client("admin").get(f"{PAGE}connections").status_code == 405
    assert world.client("admin").post("/agents/nobody/connections", {"name": SHOP}).status_code == 404
