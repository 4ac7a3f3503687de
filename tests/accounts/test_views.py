from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts import receipts, teams
from accounts.access import InvalidToken, access_for_token
from accounts.models import ApiToken, Membership, Receipt, Team, User
from accounts.schemas import Role
from accounts.tokens import create_token
from runs.schemas import FiltersIn
from tests.accounts.conftest import House

SETTINGS = "/accounts/settings/"
EVERYBODY = ("admin", "approver", "operator", "viewer", "outsider", "anonymous")

Case = tuple[str, Callable[[House], tuple[str, dict[str, str]]], dict[str, int]]

MATRIX: list[Case] = [
    (
        "get settings",
        lambda house: (SETTINGS, {}),
        dict.fromkeys(("admin", "approver", "operator", "viewer", "outsider"), 200),
    ),
    (
        "save profile",
        lambda house: ("/accounts/profile/", {"first_name": "New"}),
        dict.fromkeys(("admin", "approver", "operator", "viewer", "outsider"), 302),
    ),
    (
        "create token",
        lambda house: ("/accounts/tokens/", {"name": "t", "scopes": "read"}),
        dict.fromkeys(("admin", "approver", "operator", "viewer", "outsider"), 201),
    ),
    (
        "revoke the operator's token",
        lambda house: (f"/accounts/tokens/{ApiToken.objects.get(name='of ana').id}/revoke/", {}),
        {"admin": 302, "approver": 403, "operator": 302, "viewer": 403, "outsider": 404},
    ),
    (
        "add member",
        lambda house: ("/accounts/members/", {"username": "ines", "role": "viewer"}),
        {"admin": 201, "approver": 403, "operator": 403, "viewer": 403, "outsider": 201},
    ),
    (
        "change role",
        lambda house: (f"/accounts/members/{house.membership('viewer').id}/role/", {"role": "operator"}),
        {"admin": 302, "approver": 403, "operator": 403, "viewer": 403, "outsider": 404},
    ),
    (
        "remove member",
        lambda house: (f"/accounts/members/{house.membership('viewer').id}/remove/", {}),
        {"admin": 302, "approver": 403, "operator": 403, "viewer": 403, "outsider": 404},
    ),
    (
        "set the month's budget",
        lambda house: ("/accounts/budget/", {"month_budget_usd": "200"}),
        {"admin": 302, "approver": 403, "operator": 403, "viewer": 403, "outsider": 302},
    ),
    (
        "set the content filters",
        lambda house: (
            "/accounts/filters/",
            {"secrets": "block", "personal": "redact", "contacts": "off", "instructions": "mark"},
        ),
        {"admin": 302, "approver": 403, "operator": 403, "viewer": 403, "outsider": 302},
    ),
    (
        "switch to the team",
        lambda house: ("/accounts/team/", {"team": "harborpine"}),
        {"admin": 302, "approver": 302, "operator": 302, "viewer": 302, "outsider": 404},
    ),
    (
        "switch theme",
        lambda house: ("/accounts/theme/", {"theme": "dark"}),
        dict.fromkeys(EVERYBODY, 204),
    ),
]


@pytest.mark.parametrize("who", EVERYBODY)
@pytest.mark.parametrize("case", MATRIX, ids=[case[0] for case in MATRIX])
def test_who_may_what(house: House, who: str, case: Case) -> None:
    create_token(house.operator, house.team, name="of ana")
    name, request, expected = case
    path, data = request(house)
    client = house.client(who)
    response = client.get(path) if name.startswith("get") else client.post(path, data)
    if who in expected:
        assert response.status_code == expected[who]
    else:
        assert response.status_code == 302
        assert response.headers["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("case", MATRIX[1:], ids=[case[0] for case in MATRIX[1:]])
def test_what_writes_is_never_a_get(house: House, case: Case) -> None:
    create_token(house.operator, house.team, name="of ana")
    assert house.client("admin").get(case[1](house)[0]).status_code == 405


@pytest.mark.parametrize("what", ["tokens/{}/revoke/", "members/{}/role/", "members/{}/remove/"])
@pytest.mark.parametrize("bad", [str(uuid.UUID(int=7)), "nonsense"])
def test_bad_ids_are_not_found(house: House, what: str, bad: str) -> None:
    assert house.client("admin").post(f"/accounts/{what.format(bad)}", {"role": "viewer"}).status_code == 404


def test_a_forbidden_page_names_who_can_grant_the_right(house: House) -> None:
    page = house.client("viewer").post("/accounts/members/", {"username": "ines", "role": "viewer"})
    assert "Dana Okafor can grant it" in page.content.decode()


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_a_new_token_is_shown_once(house: House) -> None:
    client = house.client("operator")
    page = client.post("/accounts/tokens/", {"name": "import", "scopes": ["read", "runs"], "lifetime": "30"})
    found = re.search(r'id="new-token" value="([^"]+)"', page.content.decode())
    assert found
    access = access_for_token(found[1])
    assert access.token is not None
    assert (access.user, access.token.scopes) == (house.operator, ["read", "runs"])
    assert "no-store" in page.headers["Cache-Control"]
    assert found[1] not in client.get(SETTINGS).content.decode()
    assert Receipt.objects.get(kind="token.created").payload["name"] == "import"


@pytest.mark.parametrize(
    "data",
    [
        {"name": "", "scopes": "read"},
        {"name": "x", "scopes": "approvals"},
        {"name": "x"},
        {"name": "x" * 81, "scopes": "read"},
        {"name": "x", "scopes": "read", "lifetime": "9999"},
    ],
)
def test_a_wrong_token_form_keeps_what_was_typed(house: House, data: dict[str, str]) -> None:
    page = house.client("operator").post("/accounts/tokens/", data)
    assert page.status_code == 422
    assert f'value="{data["name"]}"' in page.content.decode() or not data["name"]
    assert "errorlist" in page.content.decode()
    assert not ApiToken.objects.exists()


def test_a_revoked_token_ends_at_once(house: House) -> None:
    token, raw = create_token(house.operator, house.team, name="old")
    house.client("admin").post(f"/accounts/tokens/{token.id}/revoke/")
    with pytest.raises(InvalidToken, match="revoked"):
        access_for_token(raw)
    assert Receipt.objects.get(kind="token.revoked").actor == house.admin


def test_people_see_their_own_tokens_and_admins_all_of_the_team(house: House) -> None:
    create_token(house.operator, house.team, name="of-ana")
    create_token(house.outsider, house.other, name="of-otto")
    assert "of-ana" in house.client("operator").get(SETTINGS).content.decode()
    assert "of-ana" not in house.client("viewer").get(SETTINGS).content.decode()
    admins = house.client("admin").get(SETTINGS).content.decode()
    assert "of-ana" in admins
    assert "of-otto" not in admins


# --- members ---------------------------------------------------------------------------------------------------------


def test_a_new_person_gets_an_invitation_that_signs_them_in(house: House) -> None:
    form = {"username": "ines", "email": "ines@harborpine.example", "role": "approver"}
    page = house.client("admin").post("/accounts/members/", form).content.decode()
    found = re.search(r'id="invitation" value="http://testserver([^"]+)"', page)
    assert found
    ines = User.objects.get(username="ines")
    assert not ines.has_usable_password()
    assert Membership.objects.get(user=ines).role == Role.APPROVER
    client = Client()
    assert client.post(found[1]).status_code == 302
    assert client.get(SETTINGS).status_code == 200


def test_somebody_known_here_is_added_without_a_link_into_their_account(house: House) -> None:
    for form in ({"username": "OTTO"}, {"email": "otto@harborpine.example"}):
        Membership.objects.filter(team=house.team, user=house.outsider).delete()
        page = house.client("admin").post("/accounts/members/", {**form, "role": "viewer"})
        assert page.status_code == 302
        assert Membership.objects.filter(team=house.team, user=house.outsider).exists()
    assert User.objects.count() == 5


@pytest.mark.parametrize(
    "form",
    [
        {"username": "noor", "role": "viewer"},
        {"username": "", "email": "", "role": "viewer"},
        {"email": "unknown@harborpine.example", "role": "viewer"},
        {"username": "marco", "email": "otto@harborpine.example", "role": "viewer"},
        {"username": "new", "role": "owner"},
        {"username": "two words", "role": "viewer"},
        {"username": "gone", "role": "viewer"},
    ],
    ids=["member", "empty", "unknown address", "two people", "no such role", "no username", "inactive"],
)
def test_who_cannot_be_added(house: House, form: dict[str, str]) -> None:
    User.objects.create_user("gone", is_active=False)
    page = house.client("admin").post("/accounts/members/", form)
    assert page.status_code == 422
    assert "errorlist" in page.content.decode()
    assert (User.objects.count(), Membership.objects.count()) == (6, 5)


def test_a_changed_role_works_at_once_and_leaves_a_receipt(house: House) -> None:
    house.client("admin").post(f"/accounts/members/{house.membership('viewer').id}/role/", {"role": "approver"})
    assert house.access("viewer").role == Role.APPROVER
    receipt = Receipt.objects.get(kind="member.role_changed")
    assert receipt.payload == {"member": "Noor Haddad", "before": "viewer", "role": "approver"}
    assert receipts.verify(house.team) == []


def test_a_role_that_does_not_exist_changes_nothing(house: House) -> None:
    house.client("admin").post(f"/accounts/members/{house.membership('viewer').id}/role/", {"role": "owner"})
    assert house.access("viewer").role == Role.VIEWER


def test_a_removed_member_loses_access_and_tokens(house: House) -> None:
    _, raw = create_token(house.viewer, house.team, name="t")
    client = house.client("viewer")
    house.client("admin").post(f"/accounts/members/{house.membership('viewer').id}/remove/")
    assert client.get(SETTINGS).status_code == 403
    Membership.objects.create(team=house.team, user=house.viewer, role=Role.VIEWER)
    with pytest.raises(InvalidToken, match="revoked"):
        access_for_token(raw)


@pytest.mark.parametrize(("what", "data"), [("role", {"role": "viewer"}), ("remove", {})])
def test_a_team_keeps_an_active_admin(house: House, what: str, data: dict[str, str]) -> None:
    path = f"/accounts/members/{house.membership('admin').id}/{what}/"
    sleeping = User.objects.create_user("asleep", is_active=False)
    second = Membership.objects.create(team=house.team, user=sleeping, role=Role.ADMIN)
    page = house.client("admin").post(path, data, follow=True)
    assert "needs an admin" in page.content.decode()
    assert house.access("admin").role == Role.ADMIN
    User.objects.filter(id=second.user_id).update(is_active=True)
    house.client("admin").post(path, data)
    assert not Membership.objects.filter(user=house.admin, role=Role.ADMIN).exists()


# --- person ----------------------------------------------------------------------------------------------------------


def test_the_profile_is_saved(house: House) -> None:
    client = house.client("operator")
    client.post("/accounts/profile/", {"first_name": "Anna", "last_name": "Lind", "is_superuser": "1"})
    ana = User.objects.get(id=house.operator.id)
    assert (ana.label, ana.initials, ana.shortcuts, ana.is_superuser) == ("Anna Lind", "AL", False, False)
    page = client.post("/accounts/profile/", {"first_name": "x" * 151})
    assert page.status_code == 422
    assert User.objects.get(id=house.operator.id).first_name == "Anna"


@pytest.mark.parametrize(("theme", "kept"), [("light", "light"), ("dark", "dark"), ("", ""), ("<script>", "")])
def test_the_theme_is_kept_in_a_cookie(house: House, theme: str, kept: str) -> None:
    client = house.client("viewer")
    client.post("/accounts/theme/", {"theme": theme})
    assert client.cookies["theme"].value == kept


@pytest.mark.parametrize(
    ("data", "referer", "target"),
    [
        ({"next": "/runs/"}, "", "/runs/"),
        ({}, "http://testserver/costs/?by=day", "http://testserver/costs/?by=day"),
        ({"next": "https://evil.example/"}, "", "/"),
        ({"next": "//evil.example/"}, "https://evil.example/", "/"),
    ],
)
def test_without_scripts_one_returns_to_ones_page_of_this_site(
    house: House, data: dict[str, str], referer: str, target: str
) -> None:
    headers = {"accept": "text/html", "referer": referer}
    response = house.client("viewer").post("/accounts/theme/", {"theme": "dark", **data}, headers=headers)
    assert (response.status_code, response.headers["Location"]) == (302, target)


def test_switching_the_team_changes_what_is_seen(house: House) -> None:
    Membership.objects.create(team=house.other, user=house.viewer, role=Role.ADMIN)
    client = house.client("viewer")
    assert "Members of Harbor &amp; Pine" in client.get(SETTINGS).content.decode()
    assert client.post("/accounts/team/", {"team": "elsewhere"}).status_code == 302
    assert "Members of Elsewhere" in client.get(SETTINGS).content.decode()
    assert client.post("/accounts/team/", {}).status_code == 404
    Membership.objects.filter(user=house.viewer, team=house.other).delete()
    assert "Members of Harbor &amp; Pine" in client.get(SETTINGS).content.decode()


def test_somebody_without_a_team_is_told_so(house: House) -> None:
    client = Client()
    client.force_login(User.objects.create_user("loner"), backend="django.contrib.auth.backends.ModelBackend")
    page = client.get(SETTINGS)
    assert page.status_code == 403
    assert "not a member of a team yet" in page.content.decode()
    assert client.post(reverse("account_logout")).status_code == 302


def test_the_page_takes_as_many_queries_for_many_as_for_one(house: House) -> None:
    client = house.client("admin")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(SETTINGS).status_code == 200
        return len(captured)

    queries()  # what is looked up once for a process is not the page's
    for_few = queries()
    for number in range(20):
        user = User.objects.create_user(f"user{number}")
        Membership.objects.create(team=house.team, user=user, role=Role.VIEWER)
        create_token(user, house.team, name=f"t{number}")

    assert queries() == for_few


def test_names_are_escaped(house: House) -> None:
    house.viewer.first_name = "<script>alert(1)</script>"
    house.viewer.save()
    Team.objects.filter(id=house.team.id).update(name="<img src=x>")
    page = house.client("admin").get(SETTINGS).content.decode()
    assert "<script>alert" not in page
    assert "<img src=x>" not in page


@pytest.mark.parametrize(
    "name",
    [
        "account_logout",
        "account_change_password",
        "account_set_password",
        "account_email",
        "account_reauthenticate",
        "mfa_index",
        "mfa_activate_totp",
        "accounts:settings",
    ],
)
def test_pages_of_the_signed_in_hold_to_the_content_policy(house: House, name: str) -> None:
    if name != "account_set_password":
        house.operator.set_password("a long enough phrase")
    else:
        house.operator.set_unusable_password()
    house.operator.save()
    check_page(house.client("operator"), reverse(name))


@pytest.mark.parametrize(
    "name", ["account_login", "account_reset_password", "account_reset_password_done", "account_inactive"]
)
def test_pages_of_the_signed_out_hold_to_the_content_policy(house: House, name: str) -> None:
    check_page(house.client("anonymous"), reverse(name))


def check_page(client: Client, path: str) -> None:
    response = client.get(path, follow=True)
    page = response.content.decode()
    assert response.status_code == 200
    assert page.count("<h1") == 1
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\bsrc=)(?![^>]*application/json)", page)
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]


# --- the budget of a month -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("typed", "stored"), [("200", "200"), ("49.50", "49.5"), ("", None)])
def test_an_admin_sets_the_months_budget(house: House, typed: str, stored: str | None) -> None:
    page = house.client("admin").post("/accounts/budget/", {"month_budget_usd": typed}, follow=True)

    house.team.refresh_from_db()
    assert house.team.month_budget_usd == (None if stored is None else Decimal(stored))
    assert "The budget is saved." in page.content.decode()
    assert Receipt.objects.filter(team=house.team, kind="team.budget").count() == 1


@pytest.mark.parametrize("typed", ["-1", "0", "many", "1.005", "99999999999"])
def test_a_budget_that_is_none_is_refused_where_it_was_typed(house: House, typed: str) -> None:
    page = house.client("admin").post("/accounts/budget/", {"month_budget_usd": typed})

    house.team.refresh_from_db()
    assert (page.status_code, house.team.month_budget_usd) == (422, None)
    assert f'value="{typed}"' in page.content.decode()


def test_who_may_not_set_the_budget_reads_it(house: House) -> None:
    assert "No budget of a month is set." in house.client("viewer").get(SETTINGS).content.decode()
    Team.objects.filter(id=house.team.id).update(month_budget_usd=Decimal("49.5"))
    page = house.client("viewer").get(SETTINGS).content.decode()
    assert "$49.50 in a calendar month." in page
    assert "/accounts/budget/" not in page


# --- content filters -------------------------------------------------------------------------------------------------
def test_an_admin_sets_the_content_filters(house: House) -> None:
    wanted = {"secrets": "block", "personal": "off", "contacts": "redact", "instructions": "block"}
    house.client("admin").post("/accounts/filters/", wanted)

    house.team.refresh_from_db()
    assert house.team.content_filters == wanted
    assert Receipt.objects.filter(team=house.team, kind="team.filters").count() == 1
    page = house.client("admin").get(SETTINGS).content.decode()
    assert page.count('value="block" selected') == 2


@pytest.mark.parametrize("wrong", [{"secrets": "eat"}, {"instructions": "redact"}, {"contacts": ""}])
def test_a_filter_that_does_not_exist_changes_nothing(house: House, wrong: dict[str, str]) -> None:
    wanted = {"secrets": "block", "personal": "off", "contacts": "redact", "instructions": "block"}
    page = house.client("admin").post("/accounts/filters/", wanted | wrong)

    house.team.refresh_from_db()
    assert (page.status_code, house.team.content_filters) == (422, {})


def test_the_defaults_are_those_of_agents() -> None:
    assert FiltersIn().model_dump() == teams.DEFAULT_FILTERS
