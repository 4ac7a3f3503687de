from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.access import Right, access_for_token
from accounts.first_run import ensure_first_run
from accounts.models import ApiToken, Membership, Team, User
from accounts.receipts import verify
from accounts.schemas import Role
from tests.accounts.conftest import House
from tests.accounts.together import together


def token_of(*arguments: str) -> str:
    out, err = StringIO(), StringIO()
    call_command("create_token", *arguments, stdout=out, stderr=err)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().strip() not in err.getvalue()
    return out.getvalue().strip()


def test_the_token_stands_alone_on_stdout(house: House) -> None:
    access = access_for_token(token_of("marco"))
    assert (access.user, access.team) == (house.approver, house.team)
    assert access.rights == house.access("approver").rights


def test_scopes_name_and_expiry(house: House) -> None:
    raw = token_of("dana@harborpine.example", "--scopes", "read, runs", "--name", "nightly", "--expires-days", "2")
    assert access_for_token(raw).rights == {Right.VIEW, Right.LAUNCH}
    token = ApiToken.objects.get(name="nightly")
    assert token.expires_at is not None
    assert (token.expires_at - token.created_at).days in {1, 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "no user “nobody”"),
        ([""], "no user"),
        (["ana", "--scopes", "read,all"], "Scopes are read, runs, approvals, agents"),
        (["ana", "--scopes", "agents"], "has no scope agents"),
        (["ana", "--team", "elsewhere"], "not a member of the team “elsewhere”"),
        (["ana", "--expires-days", "0"], "from 1 to"),
        (["loner"], "not a member of any team"),
        (["twice"], "say --team"),
    ],
)
def test_create_token_says_what_is_wrong_and_makes_nothing(house: House, arguments: list[str], message: str) -> None:
    User.objects.create_user("loner")
    twice = User.objects.create_user("twice")
    for team in (house.team, house.other):
        Membership.objects.create(team=team, user=twice, role=Role.VIEWER)
    out = StringIO()
    with pytest.raises(CommandError, match=message):
        call_command("create_token", *arguments, stdout=out)
    assert out.getvalue() == ""
    assert not ApiToken.objects.exists()


def test_create_user(house: House) -> None:
    call_command("create_user", "ines", "--team", "harborpine", "--role", "viewer", stdout=StringIO())
    ines = User.objects.get(username="ines")
    assert not ines.has_usable_password()
    assert Membership.objects.get(user=ines).role == "viewer"
    for arguments, message in [
        (["ines", "--team", "harborpine"], "already"),
        (["ines", "--team", "nowhere"], "no team"),
        (["not a name", "--team", "harborpine"], "valid username"),
        (["ok", "--email", "nonsense", "--team", "harborpine"], "valid email"),
    ]:
        with pytest.raises(CommandError, match=message):
            call_command("create_user", *arguments)
    assert User.objects.count() == 6


def test_create_team(house: House) -> None:
    out = StringIO()
    call_command("create_team", "night-shift", "--admin", "dana", stdout=out)
    team = Team.objects.get(slug="night-shift")
    assert team.name == "Night shift"
    assert Membership.objects.get(team=team).user.username == "dana"
    assert Membership.objects.get(team=team).role == Role.ADMIN
    call_command("create_team", "billing", "--name", "Billing & Co", "--admin", "rosa", stdout=out)
    assert Membership.objects.get(team__name="Billing & Co").user == User.objects.get(username="rosa")
    assert out.getvalue() == "night-shift: dana is its admin\nbilling: rosa is its admin (new user)\n"
    assert verify(team) == []
    for arguments, message in [
        (["billing"], "already exists"),
        (["Not a slug"], "valid “slug”"),
        (["fine", "--admin", "not a name"], "valid username"),
    ]:
        with pytest.raises(CommandError, match=message):
            call_command("create_team", *arguments)
    assert not Team.objects.filter(slug="fine").exists()


@pytest.mark.django_db
def test_the_first_run_makes_an_admin_without_a_password() -> None:
    first = ensure_first_run()
    assert first.created
    assert not first.user.has_usable_password()
    assert (first.user.username, first.team.slug) == ("admin", "default")
    assert Membership.objects.get(user=first.user).role == Role.ADMIN
    again = ensure_first_run()
    assert again == (first.user, first.team, False)


@pytest.mark.django_db
def test_a_later_run_gives_no_role_back_and_keeps_the_password() -> None:
    first = ensure_first_run()
    first.user.set_password("a long enough phrase")
    first.user.save()
    Membership.objects.update(role=Role.VIEWER)
    ensure_first_run()
    assert Membership.objects.get().role == Role.VIEWER
    assert User.objects.get().check_password("a long enough phrase")
    Membership.objects.all().delete()
    ensure_first_run()
    assert not Membership.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_first_runs_at_the_same_moment_agree() -> None:
    results = together([ensure_first_run for _ in range(4)])
    assert not [result for result in results if isinstance(result, Exception)]
    assert (User.objects.count(), Team.objects.count(), Membership.objects.count()) == (1, 1, 1)
