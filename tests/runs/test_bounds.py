"""The agent page's guardrails and who may do what: said from what holds, for readers and for admins."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Membership, User
from accounts.schemas import Role
from runs import bounds, policies
from runs.catalog import catalog
from runs.schemas import AgentIn
from tests.runs.factories import World, make_world, text_of

REFUND: dict[str, Any] = {"name": "shop.issue_refund", "policy": "review"}


def guards(world: World, **fields: Any) -> dict[str, bounds.Guard]:
    definition = AgentIn.model_validate({"name": "Refund desk", **fields})
    lines = policies.tool_lines(definition, catalog(world.team))
    return {guard.title: guard for guard in bounds.guards(world.team, definition, lines)}


@pytest.fixture
def world(db: None) -> World:
    return make_world()


@pytest.mark.parametrize(
    ("fields", "title", "value", "text"),
    [
        ({}, "Loop guard", "3, then 4 times", "the run stops"),
        ({}, "Budget warning", "at 80%", "sums up and stops"),
        ({"raise_limits": True}, "Budget warning", "at 80%", "asks people for more"),
        ({}, "Diminishing returns", "off", "Needs an evaluation after every step"),
        ({"evaluation": "every_step"}, "Diminishing returns", "3 in a row", "no progress"),
        ({}, "Approvals expire", "–", "No tool of it asks"),
        ({"tools": [REFUND]}, "Approvals expire", "after 24 h", "nothing runs"),
        (
            {"tools": [{**REFUND, "expires_s": 2700}, {"name": "shop.send_email", "policy": "two_person"}]},
            "Approvals expire",
            "after 45 min to 24 h",
            "nothing runs",
        ),
        ({"tools": [{**REFUND, "undo_s": 0}]}, "Approvals can be taken back", "off", "begins at once"),
        ({"tools": [REFUND]}, "Approvals can be taken back", "for 10 s", "nothing begins"),
        ({}, "Circuit breakers", "5 failures", "left alone"),
        (
            {"filters": {"secrets": "block", "personal": "redact", "contacts": "redact", "instructions": "mark"}},
            "Content filters",
            "4 of 4",
            "Personal data and contacts: kept out of what is stored; secrets: end the run; "
            "instructions in results: marked for the agent",
        ),
        (
            {"filters": dict.fromkeys(("secrets", "personal", "contacts", "instructions"), "off")},
            "Content filters",
            "off",
            "as they come",
        ),
    ],
)
def test_each_guardrail_says_its_own_number(
    world: World, settings: LazySettings, fields: dict[str, Any], title: str, value: str, text: str
) -> None:
    settings.AGENTSITE_UNDO_SECONDS = 10
    guard = guards(world, **fields)[title]

    assert (guard.value, guard.is_off) == (value, value in ("off", "–"))
    assert text in guard.text


def test_who_may_do_what_follows_the_roles(world: World) -> None:
    permitted = {each.right: [person.username for person in each.people] for each in bounds.permitted(world.team)}
    roles = dict(Membership.objects.filter(team=world.team).values_list("user__username", "role"))

    assert set(permitted["manage"]) == {name for name, role in roles.items() if role == Role.ADMIN}
    assert set(permitted["manage"]) <= set(permitted["decide"]) <= set(permitted["launch"])
    assert not any(roles[name] == Role.VIEWER for name in permitted["launch"])
    User.objects.filter(username__in=permitted["manage"]).update(is_active=False)
    assert bounds.permitted(world.team)[2].people == ()


def test_many_people_are_counted_and_asked_for_once(world: World) -> None:
    for number in range(12):
        user = User.objects.create_user(f"extra{number}", f"extra{number}@harborpine.example")
        Membership.objects.create(team=world.team, user=user, role=Role.OPERATOR)
    with CaptureQueriesContext(connection) as seen:
        launch, *_ = bounds.permitted(world.team)

    assert len(seen) == 1
    assert (len(launch.people), launch.more) == (bounds.MOST_NAMES, 12 + 3 - bounds.MOST_NAMES)


@pytest.mark.parametrize("who", ["viewer", "admin"])
def test_both_pages_of_an_agent_have_them(world: World, who: str) -> None:
    page = text_of(world.client(who).get(f"/agents/{world.agent.slug}/"))

    assert "Guardrails" in page
    assert len(re.findall(r'class="guard(?: guard--off)?"', page)) == 7
    assert 'id="access"' in page
    assert ("change roles" in page) is (who == "admin")
