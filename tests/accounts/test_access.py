from __future__ import annotations

import datetime as dt
import uuid

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.utils import timezone

from accounts import access as rights
from accounts.access import (
    InvalidToken,
    MissingRight,
    NoTeam,
    Right,
    access_for_session,
    access_for_token,
    access_for_user,
    still_may,
)
from accounts.models import ApiToken, Membership, Team, User
from accounts.schemas import Role, Scope
from accounts.tokens import TokenRefused, create_token, revoke_token
from tests.accounts.conftest import House

ROLES = ["viewer", "operator", "approver", "admin"]


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("viewer", {Right.VIEW}),
        ("operator", {Right.VIEW, Right.LAUNCH}),
        ("approver", {Right.VIEW, Right.LAUNCH, Right.DECIDE}),
        ("admin", set(Right)),
    ],
)
def test_each_role_has_the_rights_of_its_step_of_the_ladder(house: House, role: str, expected: set[Right]) -> None:
    assert house.access(role).rights == expected


def test_a_missing_right_names_the_role_and_who_can_grant_it(house: House) -> None:
    with pytest.raises(PermissionDenied, match="needs the role approver in Harbor & Pine") as refused:
        house.access("viewer").require(Right.DECIDE)
    assert "Dana Okafor can grant it" in str(refused.value)
    assert "Otto" not in str(refused.value)


def test_rows_are_those_of_the_team(house: House) -> None:
    names = {membership.user.username for membership in rights.rows(house.access("viewer"), Membership)}
    assert names == {"dana", "marco", "ana", "noor"}
    assert list(rights.rows(house.access("outsider"), Team.objects.all())) == [house.other]


@pytest.mark.parametrize("source", [Membership, Membership.objects, Membership.objects.all()])
def test_get_takes_a_model_a_manager_or_a_queryset(house: House, source: rights.Source[Membership]) -> None:
    mine = house.membership("viewer")
    assert rights.get(house.access("viewer"), source, mine.id) == mine
    assert rights.get(house.access("viewer"), source, user__username="noor") == mine


@pytest.mark.parametrize("bad", ["", "nonsense", "7", "\x00", str(uuid.UUID(int=0)), "../1"])
def test_a_bad_or_unknown_id_is_not_found(house: House, bad: str) -> None:
    with pytest.raises(Http404):
        rights.get(house.access("admin"), Membership, bad)


def test_another_teams_row_is_not_found_even_without_the_right(house: House) -> None:
    theirs = house.membership("outsider")
    for name in ROLES:
        with pytest.raises(Http404):
            rights.get(house.access(name), Membership, theirs.id, right=Right.MANAGE)


def test_a_row_of_the_team_without_the_right_is_forbidden(house: House) -> None:
    with pytest.raises(MissingRight):
        rights.get(house.access("approver"), Membership, house.membership("viewer").id, right=Right.MANAGE)


def test_nobody_without_a_session_or_a_team_gets_access(house: House) -> None:
    loner = User.objects.create_user("loner")
    with pytest.raises(NoTeam):
        access_for_user(loner)
    with pytest.raises(PermissionDenied):
        access_for_user(AnonymousUser())
    house.admin.is_active = False
    with pytest.raises(PermissionDenied):
        access_for_user(house.admin)


def test_a_team_can_be_chosen_only_by_its_members(house: House) -> None:
    Membership.objects.create(team=house.other, user=house.viewer, role=Role.ADMIN)
    assert access_for_user(house.viewer).team == house.team
    assert access_for_user(house.viewer, "elsewhere").role == Role.ADMIN
    with pytest.raises(Http404):
        access_for_user(house.admin, "elsewhere")
    assert access_for_session(house.admin, {"team": "elsewhere"}).team == house.team


def test_still_may_reads_the_database_afresh(house: House) -> None:
    assert still_may(house.approver.id, house.team.id, Right.DECIDE)
    assert not still_may(house.approver.id, house.other.id, Right.VIEW)
    Membership.objects.filter(user=house.approver).update(role=Role.OPERATOR)
    assert not still_may(house.approver.id, house.team.id, Right.DECIDE)
    User.objects.filter(id=house.admin.id).update(is_active=False)
    assert not still_may(house.admin.id, house.team.id, Right.VIEW)


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_only_the_digest_of_a_token_is_stored(house: House) -> None:
    token, raw = create_token(house.operator, house.team, name="import")
    stored = ApiToken.objects.values().get(id=token.id)
    assert len(raw) > 40
    assert raw not in str(stored)
    assert raw.startswith(stored["prefix"])
    assert len(stored["prefix"]) < 12
    assert access_for_token(raw).user == house.operator


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        ("viewer", ["read"]),
        ("operator", ["read", "runs"]),
        ("approver", ["read", "runs", "approvals"]),
        ("admin", ["read", "runs", "approvals", "agents"]),
    ],
)
def test_a_token_has_all_scopes_of_its_role_by_default(house: House, role: str, scopes: list[str]) -> None:
    token, raw = create_token(getattr(house, role), house.team, name="all")
    assert token.scopes == scopes
    assert access_for_token(raw).rights == house.access(role).rights


def test_a_token_may_what_both_its_scopes_and_its_role_allow(house: House) -> None:
    _, raw = create_token(house.admin, house.team, name="both", scopes=[Scope.READ, Scope.APPROVALS])
    access = access_for_token(raw)
    assert access.rights == {Right.VIEW, Right.DECIDE}
    with pytest.raises(MissingRight, match="lacks the scope “runs”"):
        access.require(Right.LAUNCH)
    Membership.objects.filter(user=house.admin).update(role=Role.OPERATOR)
    assert access_for_token(raw).rights == {Right.VIEW}


def test_a_token_that_may_only_launch_gets_a_row_to_act_on_but_no_list(house: House) -> None:
    _, raw = create_token(house.operator, house.team, name="launch", scopes=[Scope.RUNS])
    access = access_for_token(raw)
    assert rights.get(access, Membership, user=house.operator, right=Right.LAUNCH).user == house.operator
    with pytest.raises(MissingRight):
        rights.rows(access, Membership)


def test_a_token_gets_no_scope_beyond_its_role(house: House) -> None:
    with pytest.raises(TokenRefused, match="no scope approvals"):
        create_token(house.operator, house.team, name="more", scopes=[Scope.READ, Scope.APPROVALS])
    with pytest.raises(TokenRefused):
        create_token(house.operator, house.other, name="theirs")
    with pytest.raises(TokenRefused):
        create_token(house.operator, house.team, name="none", scopes=[])


def test_refused_tokens(house: House) -> None:
    now = timezone.now()
    _, revoked = create_token(house.operator, house.team, name="revoked")
    assert revoke_token(ApiToken.objects.get(name="revoked"), house.operator)
    assert not revoke_token(ApiToken.objects.get(name="revoked"), house.operator)
    _, expired = create_token(house.operator, house.team, name="old", expires_at=now - dt.timedelta(seconds=1))
    _, inactive = create_token(house.approver, house.team, name="inactive")
    User.objects.filter(id=house.approver.id).update(is_active=False)
    _, left = create_token(house.viewer, house.team, name="left")
    Membership.objects.filter(user=house.viewer).delete()
    reasons = {
        revoked: "revoked",
        expired: "expired",
        inactive: "active",
        left: "member",
        "x\ud800": "known",
        "": "known",
    }
    for raw, reason in reasons.items():
        with pytest.raises(InvalidToken, match=reason):
            access_for_token(raw)


def test_the_last_use_is_written_at_most_once_a_minute(house: House) -> None:
    token, raw = create_token(house.operator, house.team, name="busy")
    access_for_token(raw)
    first = ApiToken.objects.get(id=token.id).last_used_at
    access_for_token(raw)
    assert first is not None
    assert ApiToken.objects.get(id=token.id).last_used_at == first
    long_ago = timezone.now() - dt.timedelta(seconds=61)
    ApiToken.objects.filter(id=token.id).update(last_used_at=long_ago)
    access_for_token(raw)
    again = ApiToken.objects.get(id=token.id).last_used_at
    assert again is not None
    assert again > long_ago
