"""A person's data on the page of admins: found, previewed, erased; the audit log still proves itself."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.db import models, transaction
from django.test import Client
from django.utils import timezone

from accounts import receipts
from accounts.access import Access, access_for_user
from accounts.models import Membership, Receipt, Team, User
from accounts.schemas import Role
from accounts.secrets import encrypt
from approvals.evidence import verify
from runs import audit, documents, erasure, noting
from runs.asked import Note, RunMessage
from runs.erasure import ERASED
from runs.errors import Invalid
from runs.models import Action, Agent, Run, SearchDocument, Step, StepPayload
from runs.noting import Said
from tests.traces.factories import make_action, make_agent, make_model_step, make_run, make_step, make_team, make_user
from tests.traces.test_alerts import make_alert
from tests.traces.test_pages import main_of, sign_in
from traces import erasing, saved, text_index
from traces.models import Alert, AlertEvent, SavedSearch

PAGE = "/accounts/erasure/"
ANA = "Ana Lima"
NEW = timezone.now() - dt.timedelta(hours=1)


@pytest.fixture
def access(dana: User) -> Access:
    return access_for_user(dana)


@pytest.fixture
def run(agent: Agent, dana: User) -> Run:
    return make_run(agent, dana, created=NEW, task="Refund a parcel")


def fire(alert: Alert, label: str, subject: str = "") -> AlertEvent:
    return AlertEvent.objects.create(
        alert=alert, subject=subject, label=label, window=NEW, fired_at=NEW, value_usd=2, limit_usd=1
    )


def test_an_erased_person_is_named_by_no_alert(team: Team, access: Access, run: Run) -> None:
    marco = make_user(team, "marco", "Marco", "Ruiz", role=Role.VIEWER)
    alert = make_alert(team, per="user", email="Marco@harborpine.example")
    event = fire(alert, "Marco Ruiz", str(marco.id))
    titled = fire(alert, f"{run.short_id} Ask Marco's doctor", str(make_run(run.agent, marco, created=NEW).id))
    other = fire(alert, f"{run.short_id} {run.title}", str(run.id))
    elsewhere = fire(make_alert(make_team("elsewhere", "Elsewhere"), email=marco.email), "Marco Ruiz")
    erasing.erase_person(access, marco.id, username="marco")
    for row in (alert, event, titled, other, elsewhere.alert):
        row.refresh_from_db()
    assert (alert.email, event.label, elsewhere.alert.email) == ("", ERASED, "marco@harborpine.example")
    assert (titled.label, other.label) == (ERASED, f"{run.short_id} Refund a parcel")


def test_the_command_erases_a_person_from_the_alerts_of_every_team(team: Team) -> None:
    marco = make_user(team, "marco", "Marco", "Ruiz", role=Role.VIEWER)
    fired = [
        fire(make_alert(each, per="user", email="Marco@harborpine.example"), "Marco Ruiz", str(marco.id))
        for each in (team, make_team("elsewhere", "Elsewhere"))
    ]
    call_command("erase_person", "marco", yes=True, stdout=io.StringIO())
    for event in fired:
        event.refresh_from_db()
        assert (event.label, event.alert.email) == (ERASED, "")


def everything() -> str:
    """All text of the journal and what stands round it, as the database holds it; what is kept as evidence left out."""
    found: list[Any] = []
    for model in (Run, Step, StepPayload, SearchDocument, RunMessage, Note, SavedSearch):
        fields = [field.name for field in model._meta.fields if isinstance(field, models.TextField | models.JSONField)]
        fields += [field.name for field in model._meta.fields if isinstance(field, models.CharField)]
        found += list(model._default_manager.values_list(*fields))
    return json.dumps(found, default=str, ensure_ascii=False).lower()


@pytest.mark.parametrize(
    "fields",
    [
        {"output": {"to": "ANA  LIMA", "lines": [1, None, {"by": "x, ana-lima."}]}},
        {"input": {"Ana Lima": 3}},
        {"reasoning": "Aná Lima asked for it"},
        {"error": "no such customer: ana\nlima"},
        {"title": "Write to Ana Lima" + "!" * 183},
        {"summary": "told ana_lima"},
        {"output": ["Ana", "Lima"]},  # side by side across two values
        {"output": "x " * 140_000 + "Ana Lima"},  # behind what is indexed
    ],
    ids=["values", "names", "accents", "error", "title", "summary", "across", "long"],
)
def test_it_is_found_and_erased_wherever_it_stands_in_a_step(run: Run, access: Access, fields: dict[str, Any]) -> None:
    step = make_step(run, tool="shop.get_order", **fields)
    make_step(run, tool="shop.get_order", output="Susana Limas: others stay")
    text = erasing.read(ANA)
    found = erasing.find(access, text)
    assert (found.runs, found.steps) == (1, 1)
    erasing.erase(access, text)
    assert erasing.find(access, text).to_erase == 0
    assert 'lima"' not in everything().replace("susana lima", "")
    left = StepPayload.objects.exclude(step=step).get()
    assert left.output == "Susana Limas: others stay"
    step.refresh_from_db()
    assert ERASED in f"{step.title}{step.summary}{everything()}"
    assert step.document.run_id == run.id  # still searched


def test_it_is_found_and_erased_in_runs_messages_notes_and_searches(agent: Agent, dana: User, access: Access) -> None:
    plan = {"steps": [{"title": "Ask Ana Lima", "status": "done", "assumptions": []}]}
    run = make_run(agent, dana, created=NEW, task="Refund Ana Lima", result="Told Ana Lima", plan=plan)
    Run.objects.filter(id=run.id).update(metadata={"customer": "ana lima", "n": 48213})
    run.refresh_from_db()
    SearchDocument.objects.all().delete()
    documents.write_run(run)
    RunMessage.objects.create(run=run, sender=dana, text="Be kind to Ana Lima")
    sealed = encrypt(json.dumps({"text": "Her name is Ana Lima"}))
    RunMessage.objects.create(run=run, sender=dana, text="Her name is [redacted]", sealed=sealed)
    noting.add(access, run.id, Said(text="Ana Lima was right", score=1))
    saved.save(access, name="Her", query='"ana lima" status:failed', shared=False)
    text = erasing.read("ana.LIMA")
    watching = make_alert(agent.team, name="Her parcels", query='"ana lima"')
    telling = make_alert(agent.team, name="All", email="ana@lima.example")
    fired = fire(telling, f"{run.short_id} Refund Ana Lima")
    other = make_alert(agent.team, name="Susana Limas", email="dana@harborpine.example")
    expected = erasing.Traces(runs=1, documents=1, messages=2, notes=1, searches=1, alerts=2)
    assert erasing.find(access, text) == expected
    erasing.erase(access, text)
    assert set(Alert.objects.values_list("id", flat=True)) == {telling.id, other.id}
    fired.refresh_from_db()
    assert fired.label == f"{run.short_id} Refund {ERASED}"
    erasing.erase(access, erasing.read("ana@lima.example"))
    assert set(Alert.objects.values_list("email", flat=True)) == {"", "dana@harborpine.example"}
    assert not Alert.objects.filter(id=watching.id).exists()
    run.refresh_from_db()
    assert (run.task, run.result) == (f"Refund {ERASED}", f"Told {ERASED}")
    assert run.plan == {"steps": [{"title": f"Ask {ERASED}", "status": "done", "assumptions": []}]}
    assert run.metadata == {"customer": ERASED, "n": 48213}
    assert set(RunMessage.objects.values_list("sealed", flat=True)) == {None}
    note = Note.objects.get()
    assert (note.text, note.words, note.score) == (f"{ERASED} was right", " erased was right ", 1)
    assert not SavedSearch.objects.exists()
    assert "lima" not in everything()
    erasing.erase(access, erasing.read("48213"))
    run.refresh_from_db()
    assert run.metadata["n"] == ERASED


def test_what_filters_sealed_is_erased_too(run: Run, access: Access) -> None:
    step = make_step(run, tool="shop.get_order", output="[redacted e-mail]")
    StepPayload.objects.filter(step=step).update(sealed=encrypt(json.dumps({"output": "ana@harborpine.example"})))
    Run.objects.filter(id=run.id).update(sealed=encrypt(json.dumps({"task": "Refund ana@harborpine.example"})))
    text = erasing.read("ana@harborpine.example")
    assert erasing.find(access, text).steps == 1
    erasing.erase(access, text)
    assert StepPayload.objects.get().sealed is None
    assert Run.objects.get(id=run.id).sealed is None


def test_runs_that_go_on_are_left_out_and_evidence_is_kept(
    run: Run, agent: Agent, dana: User, access: Access, team: Team
) -> None:
    live = make_run(agent, dana, created=NEW, seconds=None)
    make_step(live, tool="shop.get_order", output=ANA)
    make_step(run, tool="shop.get_order", output=ANA)
    with transaction.atomic():
        audit.record(make_action(run, args={"to": ANA}), "action.proposed")
    text = erasing.read(ANA)
    found = erasing.erase(access, text)
    assert (found.runs, found.live_runs, found.actions) == (1, 1, 1)
    assert StepPayload.objects.get(step__run=live).output == ANA
    assert Action.objects.get().args == {"to": ANA}
    receipt = Receipt.objects.get(kind="text.erased")
    assert "lima" not in json.dumps(receipt.payload).lower()
    assert receipts.verify(team) == []
    assert [each for each in verify(team) if each.kind != "unrecorded"] == []  # the batch of the test has no receipt


def test_other_teams_keep_their_texts(run: Run, access: Access) -> None:
    elsewhere = make_team("elsewhere", "Elsewhere")
    otto = make_user(elsewhere, "otto", "Otto", "Brand")
    theirs = make_run(make_agent(elsewhere), otto, created=NEW, task=ANA)
    make_step(theirs, output=ANA)
    noting.add(access_for_user(otto), theirs.id, Said(text=ANA))
    assert erasing.erase(access, erasing.read(ANA)).to_erase == 0
    theirs.refresh_from_db()
    assert theirs.task == ANA
    assert StepPayload.objects.get().output == ANA
    assert Note.objects.get().text == ANA


def test_what_stands_everywhere_is_refused(run: Run, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_index, "MOST", 1)
    for _ in range(2):
        make_step(run, output="the parcel")
    with pytest.raises(Invalid, match="too common"):
        erasing.find(access, erasing.read("parcel"))
    for little in ("", " - ", "a.b"):
        with pytest.raises(Invalid, match="at least 3"):
            erasing.read(little)


# --- the page --------------------------------------------------------------------------------------------------------


def test_an_admin_looks_confirms_and_erases(run: Run, dana: User) -> None:
    make_step(run, tool="shop.get_order", output=f"told {ANA}")
    client = sign_in(dana)
    assert "Look for it" in client.get(PAGE).content.decode()
    page = main_of(client.post(PAGE, {"text": ANA}).content.decode())
    assert "Type <b>Ana Lima</b> again" in page
    assert StepPayload.objects.get().output == f"told {ANA}"
    wrong = client.post(f"{PAGE}text/", {"text": ANA, "again": "Ana"})
    assert (wrong.status_code, "Nothing was erased" in wrong.content.decode()) == (422, True)
    assert StepPayload.objects.get().output == f"told {ANA}"
    done = client.post(f"{PAGE}text/", {"text": ANA, "again": ANA}, follow=True)
    assert "Erased from 1 runs and 1 steps." in done.content.decode()
    assert StepPayload.objects.get().output == f"told {ERASED}"
    assert "No step, message or note" in client.post(PAGE, {"text": ANA}).content.decode()
    short = client.post(PAGE, {"text": "x"})
    assert (short.status_code, "at least 3" in short.content.decode()) == (422, True)


def test_an_admin_erases_a_person_of_the_team(run: Run, team: Team, agent: Agent, dana: User) -> None:
    marco = make_user(team, "marco", "Marco", "Ruiz", role=Role.OPERATOR)
    theirs = make_run(agent, marco, created=NEW, task="Refund for Marco")
    make_model_step(theirs, reasoning="Marco asked")
    StepPayload.objects.update(sealed=b"x")
    client = sign_in(dana)
    page = main_of(client.post(PAGE, {"text": "marco@harborpine.example"}).content.decode())
    assert "Erase Marco Ruiz" in page
    url = f"{PAGE}people/{marco.id}/"
    asked = {"text": "marco", "username": "marco", "again": "mark"}
    assert client.post(url, asked).status_code == 422
    assert client.post(url, asked | {"again": "marco"}).status_code == 302
    marco.refresh_from_db()
    theirs.refresh_from_db()
    assert (marco.is_active, marco.email, theirs.task) == (False, "", erasure.ERASED)
    assert StepPayload.objects.get().sealed is None
    assert receipts.verify(team) == []


def test_who_can_not_be_erased_here_is_said(run: Run, team: Team, agent: Agent, dana: User) -> None:
    client = sign_in(dana)
    marco = make_user(team, "marco", "Marco", "Ruiz")
    assert "This is you." in client.post(PAGE, {"text": "dana"}).content.decode()
    Membership.objects.create(team=make_team("elsewhere", "Elsewhere"), user=marco, role=Role.VIEWER)
    asked = {"text": "marco", "username": "marco", "again": "marco"}
    answer = client.post(f"{PAGE}people/{marco.id}/", asked)
    assert (answer.status_code, "in other teams too" in answer.content.decode()) == (409, True)
    Membership.objects.filter(user=marco).exclude(team=team).delete()
    make_run(agent, marco, seconds=None)
    answer = client.post(f"{PAGE}people/{marco.id}/", asked)
    assert (answer.status_code, "have not ended" in answer.content.decode()) == (409, True)
    marco.refresh_from_db()
    assert marco.is_active


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.APPROVER])
def test_it_is_for_admins(run: Run, team: Team, dana: User, role: Role) -> None:
    make_step(run, output=ANA)
    client = sign_in(make_user(team, "reader", role=role))
    assert client.get(PAGE).status_code == 403
    for path, sent in (
        (PAGE, {"text": ANA}),
        (f"{PAGE}text/", {"text": ANA, "again": ANA}),
        (f"{PAGE}people/{dana.id}/", {"text": "dana", "username": "dana", "again": "dana"}),
    ):
        assert client.post(path, sent).status_code == 403
    assert "Erase a person" not in client.get("/accounts/settings/").content.decode()
    assert StepPayload.objects.get().output == ANA
    assert Client().get(PAGE).status_code == 302


def test_an_admin_of_another_team_reaches_nobody_here(run: Run, dana: User) -> None:
    make_step(run, output=ANA)
    otto = sign_in(make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand"))
    page = main_of(otto.post(PAGE, {"text": "dana"}).content.decode())
    assert "Dana Okafor" not in page
    assert otto.post(f"{PAGE}people/{dana.id}/", {"username": "dana", "again": "dana"}).status_code == 404
    otto.post(f"{PAGE}text/", {"text": ANA, "again": ANA})
    assert StepPayload.objects.get().output == ANA


def test_hostile_text_is_shown_as_text(run: Run, dana: User) -> None:
    page = main_of(sign_in(dana).post(PAGE, {"text": "<script>alert(1)</script>\u202e"}).content.decode())
    assert "<script>alert" not in page
