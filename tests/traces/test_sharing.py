"""Links to one trace: who may make and open them, what they show, and that they end."""

from __future__ import annotations

import datetime as dt
import re

import pytest
import time_machine
from django.test import Client
from django.utils import timezone

from accounts import receipts
from accounts.access import access_for_user, token_digest
from accounts.models import Membership, Receipt, Team, User
from accounts.schemas import Role
from runs import noting
from runs.models import Agent, Run
from runs.noting import Said
from tests.traces.factories import make_model_step, make_run, make_step, make_team, make_user
from tests.traces.test_pages import main_of, sign_in
from traces import sharing
from traces.models import Share

HTMX = {"HX-Request": "true"}


@pytest.fixture
def run(agent: Agent, dana: User) -> Run:
    run = make_run(agent, dana, created=timezone.now() - dt.timedelta(hours=1), task="Find the lost parcel")
    make_model_step(run, reasoning="Ask the carrier")
    make_step(run, tool="shop.get_order", output="left at the depot")
    return run


def share(client: Client, run: Run, days: str = "7") -> str:
    """The path that the page shows, once."""
    page = client.post(f"/traces/{run.id}/shares/", {"days": days})
    assert page.status_code == 201
    assert page["Cache-Control"].startswith("max-age=0")
    found = re.search(r'value="http://testserver(/traces/shared/[\w-]{43}/)"', page.content.decode())
    assert found
    return found[1]


def test_a_link_is_made_listed_opened_and_revoked_with_receipts(run: Run, team: Team, dana: User) -> None:
    client = sign_in(dana)
    path = share(client, run)
    row = Share.objects.get()
    assert row.digest == token_digest(path.split("/")[-2])
    listed = client.get(f"/traces/{run.id}/").content.decode()
    assert path not in listed
    assert "not opened yet" in listed
    page = client.get(path).content.decode()
    assert "Find the lost parcel" in page
    assert "Shared until" in page
    row.refresh_from_db()
    assert row.opened_at is not None
    assert client.post(f"/traces/{run.id}/shares/{row.id}/revoke/").status_code == 302
    gone = client.get(path)
    assert (gone.status_code, "Then it was revoked" in gone.content.decode()) == (410, True)
    assert "Find the lost parcel" not in main_of(gone.content.decode())
    client.post(f"/traces/{run.id}/shares/{row.id}/revoke/")  # again: no second receipt
    kinds = list(Receipt.objects.order_by("seq").values_list("kind", "subject_id"))
    assert kinds == [("trace.shared", str(run.id)), ("trace.share_revoked", str(run.id))]
    assert receipts.verify(team) == []
    assert not any(path.split("/")[-2] in str(payload) for payload in Receipt.objects.values_list("payload", flat=True))


@pytest.mark.parametrize("role", list(Role))
def test_every_member_opens_a_link_and_nobody_can_change_anything_there(
    run: Run, team: Team, dana: User, role: Role
) -> None:
    noting.add(access_for_user(dana), run.id, Said(text="Seen"), seq=2)
    path = share(sign_in(dana), run)
    client = sign_in(make_user(team, "reader", role=role))
    page = main_of(client.get(f"{path}steps/2/").content.decode())
    assert "left at the depot" in page
    assert "Seen" in page
    assert re.findall(r'<form[^>]*method="post"', page) == []
    assert f"/traces/{run.id}/" not in page
    assert f'hx-get="{path}steps/1/"' in page
    for rest, headers in (("", {}), ("steps/1/", HTMX), ("rows/?first=0&end=9", {}), ("?find=depot", {})):
        answer = client.get(f"{path}{rest}", headers=headers)
        assert answer.status_code == 200
        assert f"/traces/{run.id}/" not in main_of(answer.content.decode())
    assert client.get(f"{path}steps/99/").status_code == 404
    assert client.get(f"{path}rows/?first=x").status_code == 404
    assert client.post(path).status_code == 405


def test_a_link_opens_whatever_team_its_reader_works_in(run: Run, team: Team, dana: User) -> None:
    path = share(sign_in(dana), run)
    both = make_user(team, "both", role=Role.VIEWER)
    elsewhere = make_team("elsewhere", "Elsewhere")
    Membership.objects.create(team=elsewhere, user=both, role=Role.ADMIN)
    client = sign_in(both)
    session = client.session
    session["team"] = "elsewhere"
    session.save()
    assert client.get(f"/traces/{run.id}/").status_code == 404
    page = client.get(path)
    assert page.status_code == 200
    assert "Add a note" not in page.content.decode()  # being admin elsewhere is no right here
    assert "Make a link" not in page.content.decode()


def test_for_others_there_is_no_such_link_not_even_one_that_has_ended(run: Run, dana: User) -> None:
    client = sign_in(dana)
    path = share(client, run)
    otto = sign_in(make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand"))
    stranger = Client()
    for _ in ("open", "revoked"):
        assert otto.get(path).status_code == 404
        answer = stranger.get(path)
        assert (answer.status_code, "/accounts/login/" in answer["Location"]) == (302, True)
        Share.objects.update(revoked_at=timezone.now())
    assert client.get("/traces/shared/nonsense/").status_code == 404
    assert client.get(f"/traces/shared/{'x' * 5_000}/").status_code == 404


def test_who_leaves_the_team_opens_nothing(run: Run, team: Team, dana: User) -> None:
    path = share(sign_in(dana), run)
    marco = make_user(team, "marco", "Marco", "Ruiz", role=Role.OPERATOR)
    client = sign_in(marco)
    assert client.get(path).status_code == 200
    Membership.objects.filter(user=marco, team=team).delete()
    assert client.get(path).status_code == 404  # a person without any team
    Membership.objects.create(team=make_team("elsewhere", "Elsewhere"), user=marco, role=Role.ADMIN)
    assert client.get(path).status_code == 404


def test_a_link_ends_by_itself(run: Run, dana: User) -> None:
    client = sign_in(dana)
    path = share(client, run, "1")
    with time_machine.travel(timezone.now() + dt.timedelta(hours=23), tick=False):
        client.force_login(dana, backend="django.contrib.auth.backends.ModelBackend")
        assert client.get(path).status_code == 200
    with time_machine.travel(timezone.now() + dt.timedelta(hours=25), tick=False):
        client.force_login(dana, backend="django.contrib.auth.backends.ModelBackend")
        gone = client.get(path)
        assert (gone.status_code, "Then its time was over" in gone.content.decode()) == (410, True)
        assert client.get(f"{path}steps/1/", headers=HTMX).status_code == 410
        assert "Revoke" not in client.get(f"/traces/{run.id}/").content.decode()


def test_a_link_opens_its_trace_and_no_other(run: Run, agent: Agent, dana: User) -> None:
    other = make_run(agent, dana, task="Something else", parent=run)
    make_step(other, tool="shop.secret")
    make_step(run, "delegate", child_run=other)
    path = share(sign_in(dana), run)
    page = main_of(sign_in(dana).get(path).content.decode())
    assert "shop.secret" in page  # a sub-agent's steps are part of the trace
    assert f"/traces/{other.id}/" not in page


def test_making_and_revoking_links_needs_a_role(run: Run, team: Team, dana: User) -> None:
    viewer = sign_in(make_user(team, "vera", role=Role.VIEWER))
    operator = sign_in(make_user(team, "olga", role=Role.OPERATOR))
    share(sign_in(dana), run)
    theirs = Share.objects.get()
    assert viewer.post(f"/traces/{run.id}/shares/", {"days": "7"}).status_code == 403
    for client in (viewer, operator):
        assert client.post(f"/traces/{run.id}/shares/{theirs.id}/revoke/").status_code == 403
    share(operator, run)
    own = Share.objects.exclude(id=theirs.id).get()
    assert operator.post(f"/traces/{run.id}/shares/{own.id}/revoke/").status_code == 302
    share(operator, run)
    last = Share.objects.filter(revoked_at=None, created_by__username="olga").get()
    assert sign_in(dana).post(f"/traces/{run.id}/shares/{last.id}/revoke/").status_code == 302  # an admin
    otto = sign_in(make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand"))
    assert otto.post(f"/traces/{run.id}/shares/", {"days": "7"}).status_code == 404
    assert otto.post(f"/traces/{run.id}/shares/{theirs.id}/revoke/").status_code == 404
    assert Share.objects.filter(revoked_at=None).get() == theirs


def test_what_is_wrong_is_said(run: Run, dana: User, monkeypatch: pytest.MonkeyPatch) -> None:
    client = sign_in(dana)
    answer = client.post(f"/traces/{run.id}/shares/", {"days": "9999"})
    assert (answer.status_code, "A link holds for 1, 7, 30 days." in answer.content.decode()) == (422, True)
    monkeypatch.setattr(sharing, "MOST", 1)
    share(client, run)
    answer = client.post(f"/traces/{run.id}/shares/", {"days": "7"}, headers=HTMX)
    assert (answer.status_code, "revoke one first" in answer.content.decode()) == (422, True)
    assert "<html" not in answer.content.decode()
