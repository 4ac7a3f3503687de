from __future__ import annotations

import json
import math
from collections.abc import Callable
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import transaction
from django.db.models import F

from accounts import receipts
from accounts.models import Receipt, Team
from accounts.receipts import verify
from tests.accounts.conftest import House
from tests.accounts.together import together


def write(house: House, count: int, team: Team | None = None) -> None:
    for number in range(count):
        with transaction.atomic():
            receipts.append(
                (team or house.team).id,
                "action.approved",
                actor=house.approver,
                subject_type="action",
                subject_id=f"a-{number}",
                payload={"n": number, "amount": "84.00", "note": "größer \u2028", "ratio": 0.1},
            )


def kinds(team: Team) -> list[tuple[int, str]]:
    return [(problem.seq, problem.kind) for problem in verify(team)]


def test_each_receipt_names_the_one_before_it(house: House) -> None:
    write(house, 3)
    write(house, 1, house.other)
    chain = list(Receipt.objects.filter(team=house.team))
    assert [receipt.seq for receipt in chain] == [1, 2, 3]
    assert [receipt.prev_hash for receipt in chain] == ["", chain[0].hash, chain[1].hash]
    assert {receipt.actor_label for receipt in chain} == {"Marco Ruiz"}
    assert verify(house.team) == []
    assert verify(house.other) == []


def test_numbers_that_a_database_gives_back_in_another_shape_still_verify(house: House) -> None:
    with transaction.atomic():
        payload = {"float": 1e22, "int": 2**60, "negative": -0.0, "small": 5e-324, "whole": 3.0}
        receipts.append(house.team.id, "k", actor="sweeper", subject_type="run", subject_id=1, payload=payload)
    assert verify(house.team) == []


def test_what_json_cannot_say_is_refused_and_nothing_is_written(house: House) -> None:
    with pytest.raises(ValueError), transaction.atomic():
        receipts.append(
            house.team.id, "k", actor="sweeper", subject_type="run", subject_id=1, payload={"score": math.nan}
        )
    assert not Receipt.objects.exists()
    assert verify(house.team) == []


@pytest.mark.django_db(transaction=True)
def test_a_receipt_outside_a_transaction_is_a_bug() -> None:
    team = Team.objects.create(slug="t", name="T")
    with pytest.raises(RuntimeError):
        receipts.append(team.id, "k", actor="sweeper", subject_type="run", subject_id=1, payload={})


def test_a_receipt_falls_with_its_transaction(house: House) -> None:
    def write_and_fail() -> None:
        with transaction.atomic():
            receipts.append(house.team.id, "k", actor="sweeper", subject_type="run", subject_id=1, payload={})
            raise ZeroDivisionError

    write(house, 1)
    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    write(house, 1)
    assert Receipt.objects.filter(team=house.team).count() == 2
    assert verify(house.team) == []


def swap(team: Team) -> None:
    rows = Receipt.objects.filter(team=team)
    rows.filter(seq=2).update(seq=99)
    rows.filter(seq=3).update(seq=2)
    rows.filter(seq=99).update(seq=3)


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (lambda team: Receipt.objects.filter(team=team, seq=2).update(payload={"n": 7}), [(2, "changed")]),
        (lambda team: Receipt.objects.filter(team=team, seq=2).update(actor_label="Somebody"), [(2, "changed")]),
        (lambda team: Receipt.objects.filter(team=team, seq=2).update(actor=None), [(2, "changed")]),
        (lambda team: Receipt.objects.filter(team=team, seq=2).delete(), [(3, "gap")]),
        (lambda team: Receipt.objects.filter(team=team, seq__gt=3).delete(), [(5, "truncated")]),
        (lambda team: Receipt.objects.filter(team=team).delete(), [(5, "truncated")]),
        (lambda team: Team.objects.filter(id=team.id).update(receipts_seq=F("receipts_seq") - 1), [(5, "changed")]),
        (swap, [(2, "reorder"), (2, "changed"), (3, "reorder"), (3, "changed"), (4, "reorder")]),
    ],
    ids=["payload", "actor name", "actor", "removed", "end cut off", "all removed", "end moved back", "swapped"],
)
def test_tampering_is_seen_where_it_happened(
    house: House, tamper: Callable[[Team], object], expected: list[tuple[int, str]]
) -> None:
    write(house, 5)
    tamper(house.team)
    assert kinds(house.team) == expected
    assert verify(house.other) == []


def test_a_receipt_rewritten_with_a_hash_of_its_own_breaks_the_next(house: House) -> None:
    write(house, 3)
    forged = Receipt.objects.get(team=house.team, seq=2)
    forged.payload = {"n": 7}
    forged.hash = receipts._hash(forged)
    forged.save()
    assert kinds(house.team) == [(3, "reorder")]


def test_concurrent_writers_make_one_chain(shared_house: House) -> None:
    results = together([lambda: write(shared_house, 5) for _ in range(6)])
    assert [result for result in results if result is not None] == []
    chain = list(Receipt.objects.filter(team=shared_house.team))
    assert [receipt.seq for receipt in chain] == list(range(1, 31))
    assert verify(shared_house.team) == []


def test_the_command_reports_every_team_and_fails_on_problems(house: House) -> None:
    write(house, 2)
    out = StringIO()
    call_command("verify_receipts", "--json", stdout=out)
    report = json.loads(out.getvalue())
    assert report["ok"] is True
    assert {team["team"]: team["receipts"] for team in report["teams"]} == {"elsewhere": 0, "harborpine": 2}

    Receipt.objects.filter(seq=1).update(kind="action.rejected")
    out = StringIO()
    with pytest.raises(SystemExit) as stopped:
        call_command("verify_receipts", "--json", stdout=out)
    assert stopped.value.code == 1
    report = json.loads(out.getvalue())
    assert report["ok"] is False
    assert report["teams"][1]["problems"][0]["kind"] == "changed"

    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("verify_receipts", "--team", "harborpine", stdout=out)
    assert "changed at 1" in out.getvalue()
    assert "elsewhere" not in out.getvalue()
