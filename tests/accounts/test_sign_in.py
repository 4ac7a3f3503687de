from __future__ import annotations

import datetime as dt
import os
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import SignInLink, User
from accounts.sign_in import address_of, issue_sign_in_link, sign_in_path, spend_link, whose_link
from tests.accounts.conftest import House
from tests.accounts.together import together


def signed_in_as(client: Client) -> str | None:
    return client.session.get("_auth_user_id")


def test_opening_the_link_only_shows_a_button(house: House) -> None:
    client = house.client("anonymous")
    path = sign_in_path(issue_sign_in_link(house.operator))
    for _ in range(2):
        page = client.get(path)
        assert page.status_code == 200
        assert "Sign in as Ana Lind" in page.content.decode()
        assert "no-store" in page.headers["Cache-Control"]
    assert signed_in_as(client) is None


def test_the_button_signs_in_once(house: House) -> None:
    path = sign_in_path(issue_sign_in_link(house.operator))
    client = house.client("anonymous")
    done = client.post(path)
    assert (done.status_code, done.headers["Location"]) == (302, "/")
    assert signed_in_as(client) == str(house.operator.id)

    second = house.client("anonymous")
    assert second.post(path).status_code == 410
    assert second.get(path).status_code == 410
    assert signed_in_as(second) is None


def test_the_button_needs_the_pages_csrf_token(house: House) -> None:
    path = sign_in_path(issue_sign_in_link(house.operator))
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403
    assert Client().post(path).status_code == 302


def test_links_that_sign_nobody_in(house: House) -> None:
    expired = issue_sign_in_link(house.operator, dt.timedelta(0))
    inactive = issue_sign_in_link(house.viewer)
    User.objects.filter(id=house.viewer.id).update(is_active=False)
    for token in (expired, inactive, "nonsense"):
        client = house.client("anonymous")
        assert client.get(sign_in_path(token)).status_code == 410
        assert client.post(sign_in_path(token)).status_code == 410
        assert signed_in_as(client) is None
        assert whose_link(token) is None


def test_the_token_is_not_stored(house: House) -> None:
    token = issue_sign_in_link(house.operator)
    stored = SignInLink.objects.values().get()
    assert token not in str(stored)
    assert stored["expires_at"] - timezone.now() <= dt.timedelta(minutes=10)


def test_of_many_at_the_same_moment_one_spends_it(shared_house: House) -> None:
    token = issue_sign_in_link(shared_house.operator)
    spent = together([lambda: spend_link(token) for _ in range(8)])
    assert [user for user in spent if user is not None] == [shared_house.operator]
    assert whose_link(token) is None


def test_a_second_factor_is_asked_for_all_the_same(house: House) -> None:
    from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret

    authenticator = TOTP.activate(house.operator, secret := generate_totp_secret())
    assert secret not in str(authenticator.instance.data)
    client = house.client("anonymous")
    done = client.post(sign_in_path(issue_sign_in_link(house.operator)))
    assert done.headers["Location"].startswith(reverse("mfa_authenticate"))
    assert signed_in_as(client) is None
    assert "authenticator code" in client.get(reverse("mfa_authenticate")).content.decode()


# --- password --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", ["ana", "ana@harborpine.example"])
def test_signing_in_with_a_password(house: House, login: str) -> None:
    house.operator.set_password("a long enough phrase")
    house.operator.save()
    client = house.client("anonymous")
    wrong = client.post(reverse("account_login"), {"login": login, "password": "wrong"})
    assert wrong.status_code == 200
    assert "not correct" in wrong.content.decode()
    right = client.post(reverse("account_login"), {"login": login, "password": "a long enough phrase"})
    assert right.status_code == 302
    assert signed_in_as(client) == str(house.operator.id)


def test_guessing_is_slowed_down(house: House) -> None:
    client = house.client("anonymous")
    for _ in range(5):
        client.post(reverse("account_login"), {"login": "ana", "password": "wrong"})
    house.operator.set_password("a long enough phrase")
    house.operator.save()
    client.post(reverse("account_login"), {"login": "ana", "password": "a long enough phrase"})
    assert signed_in_as(client) is None


def test_nobody_signs_up_by_themselves(house: House) -> None:
    client = house.client("anonymous")
    form = {"username": "eve", "email": "eve@harborpine.example", "password1": "x7Gq!trail", "password2": "x7Gq!trail"}
    assert "added by their team" in client.get(reverse("account_signup")).content.decode()
    client.post(reverse("account_signup"), form)
    assert not User.objects.filter(username="eve").exists()


# --- commands --------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_link_that_works(house: House) -> None:
    out = StringIO()
    call_command("sign_in_link", "ana", stdout=out)
    path = out.getvalue().strip()
    assert path.startswith("/accounts/link/")
    assert house.client("anonymous").post(path).status_code == 302

    out = StringIO()
    call_command("sign_in_link", "ANA", "--base-url", "https://agents.harborpine.example/", stdout=out)
    assert out.getvalue().startswith("https://agents.harborpine.example/accounts/link/")


@pytest.mark.parametrize(
    ("lock", "address"),
    [
        ("pid {here}, http://127.0.0.1:8117", "http://127.0.0.1:8117"),
        ("pid 999999999999, http://127.0.0.1:8117", ""),
        ("another process", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_link_leads_to_where_this_data_is_served(tmp_path: Path, lock: str | None, address: str) -> None:
    if lock is not None:
        (tmp_path / "up.lock").write_text(lock.format(here=os.getpid()))
    assert address_of(tmp_path) == address


def test_the_command_refuses_unknown_and_inactive_people(house: House) -> None:
    with pytest.raises(CommandError, match="no user “nobody”"):
        call_command("sign_in_link", "nobody")
    User.objects.filter(username="ana").update(is_active=False)
    with pytest.raises(CommandError, match="inactive"):
        call_command("sign_in_link", "ana")
