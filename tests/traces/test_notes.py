"""Notes and scores by people: who may write them, what the page, the search and the API show of them."""

from __future__ import annotations

import datetime as dt
import json
import math
import re

import pytest
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import Http404
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.access import access_for_user
from accounts.models import Team, User
from accounts.schemas import Role
from runs import erasure, noting
from runs.asked import Note
from runs.errors import Invalid
from runs.models import Agent, Run, Step
from runs.noting import Said
from tests.traces.factories import make_model_step, make_run, make_step, make_team, make_user
from tests.traces.test_pages import HOSTILE, sign_in
from traces import retention

HTMX = {"HX-Request": "true"}


@pytest.fixture
def run(agent: Agent, dana: User) -> Run:
    run = make_run(agent, dana, created=timezone.now() - dt.timedelta(hours=1))
    make_model_step(run)
    make_step(run, tool="shop.get_order", output="left at the depot")
    return run


@pytest.fixture
def olga(team: Team) -> User:
    return make_user(team, "olga", "Olga", "Ferreira", role=Role.OPERATOR)


def url(run: Run, rest: str = "") -> str:
    return f"/traces/{run.id}/{rest}"


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_note_has_words_a_score_or_both(run: Run, dana: User) -> None:
    access = access_for_user(dana)
    both = noting.add(access, run.id, Said(text="  Wrong customer \r\n", score=0.2), seq=2)
    assert (both.text, both.words, both.score, both.step and both.step.seq) == (
        "Wrong customer",
        " wrong customer ",
        0.2,
        2,
    )
    assert noting.add(access, run.id, Said(score=0)).step is None
    assert noting.add(access, run.id, Said(text="a\x00b\ud800")).text == "a\ufffdb\ufffd"
    for said, field in (
        (Said(text="  "), "text"),
        (Said(text="x" * 4_001), "text"),
        (Said(score=1.01), "score"),
        (Said(text="x", score=math.nan), "score"),
    ):
        with pytest.raises(Invalid) as refused:
            noting.add(access, run.id, said)
        assert list(refused.value.errors) == [field]
    with pytest.raises(Http404):
        noting.add(access, run.id, Said(text="x"), seq=99)
    assert Note.objects.count() == 3


def test_one_changes_ones_own_and_an_admin_may_delete_any(run: Run, dana: User, olga: User) -> None:
    mine, admin = access_for_user(olga), access_for_user(dana)
    note = noting.add(mine, run.id, Said(text="Too slow"))
    assert noting.edit(mine, run.id, note.id, Said(text="Too slow")).edited_at is None
    changed = noting.edit(mine, run.id, note.id, Said(text="Much too slow", score=0.5))
    assert (changed.words, changed.score, changed.edited_at is not None) == (" much too slow ", 0.5, True)
    with pytest.raises(PermissionDenied, match="Olga Ferreira wrote this note"):
        noting.edit(admin, run.id, note.id, Said(text="Not at all"))
    other = noting.add(admin, run.id, Said(text="x"))
    with pytest.raises(PermissionDenied):
        noting.delete(mine, run.id, other.id)
    noting.delete(admin, run.id, note.id)
    noting.delete(admin, run.id, other.id)
    assert not Note.objects.exists()


def test_what_content_filters_redact_is_not_kept_in_a_note(run: Run, dana: User) -> None:
    note = noting.add(access_for_user(dana), run.id, Said(text="Key sk-ant-api03-" + "a1B2" * 24 + " is in the output"))
    assert "a1B2" not in note.text
    assert "a1b2" not in note.words


def test_a_run_holds_so_many_notes(run: Run, dana: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noting, "MOST", 1)
    noting.add(access_for_user(dana), run.id, Said(text="x"))
    with pytest.raises(Invalid, match="1 notes stand on this run"):
        noting.add(access_for_user(dana), run.id, Said(text="y"))


# --- the page --------------------------------------------------------------------------------------------------------


def test_a_note_is_written_changed_and_deleted_without_scripts(run: Run, olga: User) -> None:
    client = sign_in(olga)
    answer = client.post(url(run, "steps/2/notes/add/"), {"text": "Wrong depot", "score": "0,4"})
    assert (answer.status_code, answer["Location"]) == (302, url(run, "steps/2/#notes-step"))
    page = client.get(url(run, "steps/2/")).content.decode()
    assert "Wrong depot" in page
    assert "Olga Ferreira" in page
    assert 'aria-label="Notes by people"' in page  # the mark in the waterfall
    note = Note.objects.get()
    assert client.post(url(run, f"notes/{note.id}/"), {"text": "Wrong shelf", "score": ""}).status_code == 302
    note.refresh_from_db()
    assert (note.text, note.score) == ("Wrong shelf", None)
    assert ", edited" in client.get(url(run, "steps/2/")).content.decode()
    client.post(url(run, f"notes/{note.id}/"), {"do": "delete"})
    assert not Note.objects.exists()
    assert client.post(url(run, "notes/add/"), {"score": "1"})["Location"] == url(run, "?notes=open")
    assert "data-menu open" in client.get(url(run, "?notes=open")).content.decode()


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("place", ["notes/add/", "steps/2/notes/add/"])
def test_what_is_wrong_is_said_and_nothing_typed_is_lost(
    run: Run, olga: User, place: str, headers: dict[str, str]
) -> None:
    answer = sign_in(olga).post(url(run, place), {"text": "Keep me", "score": "high"}, headers=headers)
    page = answer.content.decode()
    assert answer.status_code == 422
    assert "Keep me" in page
    assert 'value="high"' in page
    assert "A score is a number from 0 to 1" in page
    assert ("<html" in page) == (not headers)


def test_scripts_get_the_section_and_others_see_it_within_seconds(run: Run, olga: User, dana: User) -> None:
    client, other = sign_in(olga), sign_in(dana)
    assert other.get(url(run, "notes/?have=0")).status_code == 204
    section = client.post(url(run, "notes/add/"), {"text": "Look here"}, headers=HTMX).content.decode()
    assert section.lstrip().startswith('<div class="notes" id="notes-run">')
    assert '<span id="notes-count" hx-swap-oob="true">1</span>' in section
    seen = other.get(url(run, "notes/?have=0"))
    assert "Look here" in seen.content.decode()
    stamp = seen.content.decode().partition('data-have="')[2].partition('"')[0]
    assert other.get(url(run, "notes/"), {"have": stamp}).status_code == 204
    assert other.get(url(run, "steps/1/notes/?have=0")).status_code == 204
    assert other.get(url(run, "steps/99/notes/?have=0")).status_code == 404


def test_hostile_notes_are_shown_as_text(run: Run, olga: User, dana: User) -> None:
    """To others: their author's own form holds the text as it was typed."""
    client, reader = sign_in(olga), sign_in(dana)
    for place in ("notes/add/", "steps/1/notes/add/"):
        client.post(url(run, place), {"text": HOSTILE})
    for path in (url(run, "steps/1/"), url(run, "notes/"), "/traces/?q=note:alert"):
        page = reader.get(path).content.decode()
        assert "alert" in page
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "\u202e" not in page


@pytest.mark.parametrize("role", list(Role))
def test_every_role_reads_notes_and_from_operator_on_writes_them(run: Run, team: Team, dana: User, role: Role) -> None:
    note = noting.add(access_for_user(dana), run.id, Said(text="Seen by all"))
    client = sign_in(make_user(team, "reader", role=role))
    page = client.get(url(run)).content.decode()
    writes = role != Role.VIEWER
    assert "Seen by all" in page
    assert ("Add a note" in page) is writes
    assert client.post(url(run, "notes/add/"), {"text": "x"}).status_code == (302 if writes else 403)
    assert client.post(url(run, f"notes/{note.id}/"), {"text": "x"}).status_code == 403
    assert Note.objects.count() == 1 + writes


def test_nobody_of_another_team_reads_or_writes_notes(run: Run, dana: User) -> None:
    note = noting.add(access_for_user(dana), run.id, Said(text="Ours"))
    otto = sign_in(make_user(make_team("elsewhere", "Elsewhere"), "otto", "Otto", "Brand"))
    assert otto.get(url(run, "notes/")).status_code == 404
    for path in ("notes/add/", "steps/1/notes/add/", f"notes/{note.id}/"):
        assert otto.post(url(run, path), {"text": "x", "do": "delete"}).status_code == 404
    assert "Ours" not in otto.get("/traces/?q=note:ours").content.decode().replace("note:ours", "")
    stranger = Client().post(url(run, "notes/add/"), {"text": "x"})
    assert (stranger.status_code, "/accounts/login/" in stranger["Location"]) == (302, True)
    assert Note.objects.get().text == "Ours"


def test_a_note_of_one_run_is_not_changed_through_another(run: Run, agent: Agent, dana: User) -> None:
    note = noting.add(access_for_user(dana), run.id, Said(text="Here"))
    elsewhere = make_run(agent, dana)
    assert sign_in(dana).post(url(elsewhere, f"notes/{note.id}/"), {"do": "delete"}).status_code == 404
    assert Note.objects.count() == 1


def test_many_notes_cost_no_more_queries(run: Run, dana: User, olga: User) -> None:
    client = sign_in(dana)
    counts = set()
    for size in (1, 5):
        for index in range(size):
            for seq in (None, 1, 2):
                noting.add(access_for_user((dana, olga)[index % 2]), run.id, Said(text=f"n {index}"), seq=seq)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(url(run, "steps/1/")).status_code == 200
        counts.add(len(queries))
    assert len(counts) == 1


# --- search, export, removal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("note:depot", True),
        ("note:shelf", False),
        ("human_score:<0.5", True),
        ("human_score:>=0.5", False),
        ("noted_by:olga", True),
        ("noted_by:dana", False),
        ("has:note", True),
        ("step:{tool:shop.* note:wrong}", True),
        ("step:{kind:model note:wrong}", False),
        ("-note:depot", False),
    ],
)
def test_notes_are_searched_for(run: Run, olga: User, q: str, found: bool) -> None:
    noting.add(access_for_user(olga), run.id, Said(text="Wrong depot", score=0.4), seq=2)
    assert sign_in(olga).get("/traces/", {"q": q}).context["found"].total == int(found)


def test_a_found_note_is_shown_with_its_step(run: Run, olga: User) -> None:
    noting.add(access_for_user(olga), run.id, Said(text="The wrong depot again"), seq=2)
    page = sign_in(olga).get("/traces/?q=note:wrong").content.decode()
    assert f'href="{url(run, "steps/2/")}"' in page
    assert "The <mark>wrong</mark> depot again" in page
    assert "a person&#x27;s note mentions “wrong”" in page


def test_the_json_of_a_trace_holds_its_notes(run: Run, olga: User) -> None:
    noting.add(access_for_user(olga), run.id, Said(text="Wrong", score=0.25), seq=2)
    trace = json.loads(sign_in(olga).get(url(run, "export.json")).getvalue())
    (note,) = trace["notes"]
    assert {name: note[name] for name in ("seq", "text", "score", "author", "edited_at")} == {
        "seq": 2,
        "text": "Wrong",
        "score": 0.25,
        "author": "olga",
        "edited_at": None,
    }


def test_pruning_and_erasing_take_notes_along(run: Run, team: Team, dana: User, olga: User) -> None:
    noting.add(access_for_user(olga), run.id, Said(text="Ask Ana Lima", score=0.5))
    noting.add(access_for_user(dana), run.id, Said(text="Mine"), seq=1)
    assert erasure.erase(olga, by="test").notes == 1
    kept = Note.objects.get(author=olga)
    assert (kept.text, kept.words, kept.score) == (erasure.ERASED, "", 0.5)
    assert Note.objects.get(author=dana).text == "Mine"
    retention.prune(team, -dt.timedelta(hours=2))
    assert not Note.objects.exists()
    assert not Step.objects.exists()


# --- many of them ----------------------------------------------------------------------------------------------------


def noted_often(run: Run, author: User, count: int, seq: int | None = None) -> list[Note]:
    step = None if seq is None else run.steps.get(seq=seq)
    rows = [Note(team=run.team, run=run, step=step, author=author, text=f"note {n:03}.") for n in range(count)]
    for number, row in enumerate(rows):
        row.save()
        Note.objects.filter(id=row.id).update(created_at=timezone.now() - dt.timedelta(minutes=count - number))
    return rows


def shown_in(page: str) -> list[int]:
    return [int(number) for number in re.findall(r"note (\d{3})\.</p>", page)]


@pytest.mark.parametrize("seq", [None, 2])
def test_of_many_notes_the_newest_are_shown_and_the_rest_when_asked_for(run: Run, olga: User, seq: int | None) -> None:
    notes = noted_often(run, olga, 23, seq)
    client, path = sign_in(olga), url(run, "" if seq is None else "steps/2/")
    page = client.get(path).content.decode()
    assert shown_in(page) == list(range(3, 23))
    assert "Show 3 earlier</a>" in page
    whole = client.get(path + "?notes=all").content.decode()
    assert shown_in(whole) == list(range(23))
    assert "earlier</a>" not in whole
    listed = client.get(f"{path}notes/?all").content.decode()
    assert shown_in(listed) == list(range(23))
    assert "notes/?all" in listed  # what comes later does not fold it again
    changing = {"text": "note 001.", "score": "1", "all": "1"}
    changed = client.post(url(run, f"notes/{notes[1].id}/"), changing, headers=HTMX).content.decode()
    assert shown_in(changed) == list(range(23))
    refused = client.post(url(run, f"notes/{notes[1].id}/"), {"text": "", "score": "x"}, headers=HTMX)
    assert f'id="note-{notes[1].id}"' in refused.content.decode()


def test_the_page_asks_as_often_however_many_notes_there_are(run: Run, olga: User) -> None:
    client = sign_in(olga)
    noted_often(run, olga, 2)
    client.get(url(run))
    with CaptureQueriesContext(connection) as few:
        client.get(url(run))
    noted_often(run, olga, 30)
    with CaptureQueriesContext(connection) as many:
        client.get(url(run))
    with CaptureQueriesContext(connection) as whole:
        client.get(url(run, "?notes=all"))
    assert len(few) == len(many) == len(whole)
