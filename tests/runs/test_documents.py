"""What the search finds is written with its row, in one spelling."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import connection, transaction

from runs import documents
from runs.models import Run, SearchDocument, Step, StepPayload
from runs.words import LONGEST_WORD, text_of, words
from tests.runs.factories import World, make_run, make_step


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ORD-48213", ["ord", "48213"]),
        ("ana@harborpine.example", ["ana", "harborpine", "example"]),
        ("https://harborpine.example/s?x=1", ["https", "harborpine", "example", "s", "x", "1"]),
        ("snake_case v1.1 84.00 10%", ["snake", "case", "v1", "1", "84", "00", "10"]),
        ("Zoë's ZOE\u0308 STRASSE Straße", ["zoe", "s", "zoe", "strasse", "strasse"]),
        ("ﬁne ½ ٣", ["fine", "1", "2", "٣"]),
        ("退款 42 テスト", ["退", "款", "42", "テ", "ス", "ト"]),
        ("…—·", []),
        ("", []),
    ],
)
def test_a_text_has_one_spelling(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_endless_words_are_cut() -> None:
    assert words("A" * 9_000) == ["a" * LONGEST_WORD]


def test_a_json_value_reads_in_order_and_no_deeper_than_it_can() -> None:
    assert text_of({"order": [48102, None, True], "note": "late"}, 99) == ("order 48102 true note late", False)
    assert text_of({"a": "x" * 50}, 10)[1]
    deep: object = "end"
    for _ in range(5_000):
        deep = [deep]
    assert text_of(deep, 99) == ("end", False)


@pytest.fixture
def run(world: World) -> Run:
    return make_run(world, task="Late deliveries", metadata={"customer": "Ana Lima", "tags": ["vip", "late"], "n": 7})


def test_a_step_is_found_in_the_transaction_that_writes_it(run: Run) -> None:
    step = make_step(run, output={"order": "ORD-48213"}, error="Timed out")
    found = SearchDocument.objects.get(step=step)
    assert (found.output, found.error, found.seq) == (" order ord 48213 ", " timed out ", step.seq)
    assert in_index("48213") == [found.id]
    with transaction.atomic():
        make_step(run, output="vanishing")
        transaction.set_rollback(True)
    assert in_index("vanishing") == []


def test_a_run_is_found_by_its_task_and_metadata(run: Run) -> None:
    found = SearchDocument.objects.get(run=run, seq=0)
    assert found.input == " late deliveries "
    assert documents.metadata_words("customer", "Ana Lima") in found.about
    assert documents.metadata_words("tags", "vip") in found.about


def test_long_texts_are_cut_and_say_so(run: Run) -> None:
    step = make_step(run, output="word " * documents.MOST_TEXT, error="short", input="unread")
    found = SearchDocument.objects.get(step=step)
    assert found.cut
    assert found.error == " short "
    assert len(found.output) < documents.MOST_TEXT + 2
    assert found.input == ""


def test_a_text_that_was_changed_is_found_as_it_is_now(run: Run) -> None:
    step = make_step(run, output="secretive")
    StepPayload.objects.filter(step=step).update(output="redacted")
    documents.rewrite(Step.objects.filter(id=step.id).select_related("run", "payload"))
    assert in_index("secretive") == []
    assert len(in_index("redacted")) == 1
    run.delete()
    assert in_index("redacted") == []


def test_what_has_no_document_gets_one(run: Run) -> None:
    make_step(run, output="needle")
    SearchDocument.objects.all().delete()
    upkeep = documents.Upkeep()
    assert (upkeep(), upkeep(), upkeep()) == (2, 0, 0)
    assert len(in_index("needle")) == 1
    SearchDocument.objects.all().delete()
    Step.objects.update(started_at=run.created_at - dt.timedelta(days=2))
    assert upkeep() == 1  # the run; the old step would have been found when the process began


def in_index(word: str) -> list[int]:
    """Document numbers as the database's own index of words has them."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(
                "INSERT INTO runs_searchdocument_words (runs_searchdocument_words) VALUES ('integrity-check')"
            )
            cursor.execute(
                "SELECT rowid FROM runs_searchdocument_words WHERE runs_searchdocument_words MATCH %s", [word]
            )
        else:
            cursor.execute(
                "SELECT id FROM runs_searchdocument WHERE array_to_tsvector(array_remove(string_to_array("
                "about || error || reasoning || output || input, ' '), '')) @@ %s::tsquery",
                [word],
            )
        return [number for (number,) in cursor.fetchall()]
