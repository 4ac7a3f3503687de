"""The sample shop on its store directly; `test_shop_mcp.py` goes over the wire."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import runs
from runs.samples.shop import seed, tools
from runs.samples.shop.__main__ import main
from runs.samples.shop.store import ShopError, Store

SAMPLES = Path(runs.__file__).parent / "samples"
NOW = datetime(2026, 3, 12, 14, 32, 10, tzinfo=UTC)

REFUND = {"order": "48213", "amount": 84.0, "reason": "Policy 3.1: the photo shows a dent."}
CHANGES = {"customer": "C-20917", "changes": {"damage_claims_12m": 1, "preferred_contact": "email"}}
EMAIL = {"to": "ines.carvalho@example.com", "subject": "Your refund", "body": "Hello Ines,\n\nit is on its way."}
DELETION = {"kind": "exports", "ids": ["E-1001", "E-1002"]}
EFFECTS: dict[str, dict[str, Any]] = {
    "issue_refund": REFUND,
    "update_customer": CHANGES,
    "send_email": EMAIL,
    "delete_stale_records": DELETION,
}

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "shop.sqlite3", now=lambda: NOW)
    made.prepare()
    return made


@pytest.fixture
def call(store: Store) -> Call:
    def run(name: str, arguments: dict[str, Any] | None = None, key: str | None = None) -> dict[str, Any]:
        return tools.call(store, name, arguments or {}, key)

    return run


def contents(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table: equal before and after means that nothing changed."""
    with closing(sqlite3.connect(store.path)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {table: db.execute(f'SELECT * FROM "{table}" ORDER BY 1').fetchall() for table in tables}


# Reads


def test_tickets_of_a_tag_are_the_three_of_the_story(call: Call) -> None:
    tickets = call("list_tickets", {"tag": "damaged-in-transit", "status": "open"})["tickets"]
    assert [(ticket["ticket"], ticket["customer"], ticket["order"]) for ticket in tickets] == [
        ("T-301", "C-20917", "48213"),
        ("T-302", "C-20944", "48231"),
        ("T-303", "C-20871", "48166"),
    ]
    assert tickets[0]["opened_at"] == "2026-03-12T09:00:00Z"
    assert set(tickets[0]) == {"ticket", "subject", "customer", "order", "tag", "status", "opened_at"}


def test_tickets_are_filtered_by_status_and_by_nothing(call: Call) -> None:
    assert len(call("list_tickets")["tickets"]) == len(seed.TICKETS)
    assert {ticket["status"] for ticket in call("list_tickets", {"status": "solved"})["tickets"]} == {"solved"}
    assert call("list_tickets", {"tag": "no-such-tag"}) == {"tickets": []}


def test_a_ticket_tells_the_message_and_what_photos_show(call: Call) -> None:
    ticket = call("read_ticket", {"ticket": "T-301"})
    assert "$84.00" in ticket["message"]
    assert "dent" in ticket["photos"][0]["shows"]
    assert "no email needed" in call("read_ticket", {"ticket": "T-302"})["message"].casefold()


def test_an_order_has_its_money_age_and_payment(call: Call) -> None:
    order = call("get_order", {"order": "48213"})
    assert (order["total"], order["refunded"], order["currency"], order["version"]) == (129.0, 0.0, "USD", 1)
    assert (order["days_old"], order["ordered_on"]) == (6, "2026-03-06")
    assert order["payment"] == {"method": "Visa", "ending": "4412"}
    assert sum(line["price"] for line in order["lines"]) == order["total"]
    assert "drop" in order["carrier_note"]


def test_ages_do_not_grow_with_the_file(store: Store) -> None:
    years_later = Store(store.path, now=lambda: datetime(2031, 1, 1, tzinfo=UTC))
    order = tools.call(years_later, "get_order", {"order": "48166"})
    assert (order["days_old"], order["ordered_on"]) == (75, "2030-10-18")


def test_a_customer_is_the_whole_record(call: Call) -> None:
    assert call("get_customer", {"customer": "C-20917"}) == {
        "customer": "C-20917",
        "name": "Ines Carvalho",
        "email": "ines.carvalho@example.com",
        "preferred_contact": "phone",
        "damage_claims_12m": 0,
        "notes": "",
        "version": 1,
    }


def test_policy_is_found_by_words(call: Call) -> None:
    sections = call("search_policy", {"query": "orders older than 60 days"})["sections"]
    assert sections[0]["section"] == "3.2"
    assert set(sections[0]) == {"section", "title", "text"}
    everything = call("search_policy", {"query": "refund damaged in transit"})["sections"]
    assert {section["section"] for section in everything} == {"3.1", "3.2", "3.3", "3.4"}
    assert call("search_policy", {"query": "zeppelin"}) == {"sections": []}


def test_suppliers_are_found_and_read(call: Call) -> None:
    found = call("search_suppliers", {"query": "aluminium tent poles"})["suppliers"]
    assert [each["name"] for each in found[:3]] == ["Fjellwerk", "Alto Campo", "Baltic Mast"]
    supplier = call("read_supplier", {"supplier": found[0]["supplier"]})
    assert supplier["unit_price"] == 6.2
    assert {"certificate", "lead_time_days", "contact_email", "second_source"} <= set(supplier)


def test_stale_records_are_older_than_asked(call: Call) -> None:
    records = call("list_stale_records", {"kind": "exports", "older_than_days": 90})["records"]
    assert [record["id"] for record in records] == [f"E-{number}" for number in range(1001, 1008)]
    assert records[-1]["last_used_on"] == "2025-12-06"
    assert {record["kind"] for record in records} == {"exports"}


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("read_ticket", {"ticket": "T-999"}, "there is no ticket T-999"),
        ("get_order", {"order": "1"}, "there is no order 1"),
        ("get_customer", {"customer": "C-1"}, "there is no customer C-1"),
        ("read_supplier", {"supplier": "S-99"}, "there is no supplier S-99"),
        ("list_stale_records", {"kind": "people", "older_than_days": 90}, "kind: "),
        ("list_stale_records", {"kind": "carts", "older_than_days": 0}, "older_than_days: "),
        ("get_order", {}, "order: Field required"),
        ("get_order", {"order": "48213", "extra": 1}, "extra: "),
        ("launch_rocket", {}, "the shop has no tool launch_rocket"),
    ],
)
def test_bad_reads_are_refused_in_words(call: Call, name: str, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ShopError, match=f"^{problem}"):
        call(name, arguments)


# Effects


def test_a_refund_changes_the_order_once(call: Call, store: Store) -> None:
    result = call("issue_refund", REFUND, "k1")
    assert (result["amount"], result["refunded"], result["stays_paid"], result["repeat"]) == (84.0, 84.0, 45.0, False)
    order = call("get_order", {"order": "48213"})
    assert (order["refunded"], order["version"]) == (84.0, 2)
    assert [(entry["key"], entry["tool"], entry["arguments"]) for entry in store.ledger()] == [
        ("k1", "issue_refund", REFUND)
    ]


def test_two_refunds_may_fill_an_order_to_the_cent(call: Call) -> None:
    call("issue_refund", {**REFUND, "amount": 128.99}, "k1")
    assert call("issue_refund", {**REFUND, "amount": 0.01}, "k2")["stays_paid"] == 0
    with pytest.raises(ShopError, match=r"0\.01 is more than the 0\.00 left"):
        call("issue_refund", {**REFUND, "amount": 0.01}, "k3")


@pytest.mark.parametrize("tool", ["issue_refund", "plan_issue_refund"])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"amount": 129.01}, r"129\.01 is more than the 129\.00 left to refund on order 48213"),
        ({"amount": 0}, "amount: "),
        ({"amount": -5}, "amount: "),
        ({"amount": 84.005}, "amount has at most two decimal places"),
        ({"amount": "84.00"}, "amount: "),
        ({"amount": float("nan")}, "amount: "),
        ({"amount": True}, "amount: "),
        ({"order": "1"}, "there is no order 1"),
        ({"reason": ""}, "reason: "),
    ],
)
def test_a_bad_refund_is_refused_by_plan_and_effect(
    call: Call, store: Store, tool: str, change: dict[str, Any], problem: str
) -> None:
    before = contents(store)
    with pytest.raises(ShopError, match=problem):
        call(tool, {**REFUND, **change}, "k1")
    assert contents(store) == before


def test_an_update_changes_the_named_fields_only(call: Call) -> None:
    result = call("update_customer", CHANGES, "k1")
    assert result["changed"] == {
        "damage_claims_12m": {"before": 0, "after": 1},
        "preferred_contact": {"before": "phone", "after": "email"},
    }
    customer = call("get_customer", {"customer": "C-20917"})
    assert (customer["damage_claims_12m"], customer["preferred_contact"], customer["version"]) == (1, "email", 2)
    assert (customer["name"], customer["notes"]) == ("Ines Carvalho", "")


def test_an_update_to_what_is_there_changes_nothing(call: Call) -> None:
    result = call("update_customer", {"customer": "C-20917", "changes": {"preferred_contact": "phone"}}, "k1")
    assert (result["changed"], result["version"]) == ({}, 1)


@pytest.mark.parametrize(
    "changes", [{}, {"version": 9}, {"damage_claims_12m": "1"}, {"email": "nobody"}, {"preferred_contact": "fax"}]
)
def test_a_bad_update_is_refused(call: Call, changes: dict[str, Any]) -> None:
    with pytest.raises(ShopError, match=r"^changes"):
        call("update_customer", {"customer": "C-20917", "changes": changes}, "k1")


def test_an_email_goes_to_the_outbox(call: Call, store: Store) -> None:
    assert call("send_email", EMAIL, "k1")["outside"] is True
    assert call("send_email", {**EMAIL, "to": "dana@harborpine.example"}, "k2")["outside"] is False
    assert contents(store)["outbox"][0][1:] == (EMAIL["to"], EMAIL["subject"], EMAIL["body"])


@pytest.mark.parametrize(
    "change", [{"to": "a@b.example, c@d.example"}, {"subject": "One\nTwo"}, {"subject": " "}, {"body": ""}]
)
def test_a_bad_email_is_refused(call: Call, change: dict[str, Any]) -> None:
    with pytest.raises(ShopError, match=f"^{next(iter(change))}: "):
        call("send_email", {**EMAIL, **change}, "k1")


def test_deletion_takes_all_named_records(call: Call) -> None:
    result = call("delete_stale_records", DELETION, "k1")
    assert (result["deleted"], result["count"], result["size_kb"]) == (["E-1001", "E-1002"], 2, 430_540)
    left = call("list_stale_records", {"kind": "exports", "older_than_days": 90})["records"]
    assert [record["id"] for record in left] == [f"E-{number}" for number in range(1003, 1008)]


@pytest.mark.parametrize("tool", ["delete_stale_records", "plan_delete_stale_records"])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"kind": "exports", "ids": ["E-1001", "E-9999"]}, "there is no export file E-9999"),
        ({"kind": "tickets", "ids": ["E-1001"]}, "there is no solved ticket E-1001"),
        ({"kind": "exports", "ids": ["E-1001", "E-1009"]}, "used 8 days ago"),
        ({"kind": "exports", "ids": []}, "ids: "),
        ({"kind": "exports", "ids": ["E-1001", "E-1001"]}, "an id is listed twice"),
    ],
)
def test_a_bad_deletion_deletes_nothing(
    call: Call, store: Store, tool: str, arguments: dict[str, Any], problem: str
) -> None:
    before = contents(store)
    with pytest.raises(ShopError, match=problem):
        call(tool, arguments, "k1")
    assert contents(store) == before


# Plans


@pytest.mark.parametrize("name", EFFECTS)
def test_a_plan_changes_nothing_and_says_the_same_twice(call: Call, store: Store, name: str) -> None:
    before = contents(store)
    first = call(f"plan_{name}", EFFECTS[name])
    assert call(f"plan_{name}", EFFECTS[name], "ignored") == first
    assert set(first) == {"summary", "preview", "preconditions"}
    assert contents(store) == before


@pytest.mark.parametrize("name", EFFECTS)
def test_preconditions_differ_once_the_world_has_changed(call: Call, store: Store, name: str) -> None:
    planned = call(f"plan_{name}", EFFECTS[name])["preconditions"]
    others: dict[str, tuple[str, dict[str, Any]]] = {
        "issue_refund": ("issue_refund", {**REFUND, "amount": 1}),
        "update_customer": ("update_customer", {"customer": "C-20917", "changes": {"notes": "Moved."}}),
        "send_email": ("update_customer", {"customer": "C-20917", "changes": {"email": "ines@example.org"}}),
    }
    if name in others:
        call(*others[name], "someone-else")
    else:
        with closing(sqlite3.connect(store.path)) as db, db:
            db.execute("UPDATE records SET version = version + 1 WHERE record = 'E-1002'")
    assert call(f"plan_{name}", EFFECTS[name])["preconditions"] != planned


def test_actions_of_one_batch_do_not_make_each_other_stale(call: Call) -> None:
    planned = {name: call(f"plan_{name}", arguments)["preconditions"] for name, arguments in EFFECTS.items()}
    for name, arguments in EFFECTS.items():
        assert call(f"plan_{name}", arguments)["preconditions"] == planned[name]
        call(name, arguments, f"key-{name}")


def test_previews_show_what_would_happen(call: Call) -> None:
    refund = call("plan_issue_refund", REFUND)
    assert refund["summary"] == "Refund $84.00 to Ines Carvalho"
    assert (refund["preview"]["amount"], refund["preview"]["method"]) == ("84.00", "Visa ending 4412")
    assert [line["amount"] for line in refund["preview"]["lines"]] == ["129.00", "0.00", "84.00", "45.00"]

    update = call("plan_update_customer", CHANGES)
    assert update["summary"] == "Change 2 fields on customer C-20917"
    assert {"field": "preferred_contact", "now": "phone", "after": "email"} in update["preview"]["fields"]

    email = call("plan_send_email", EMAIL)
    assert email["summary"] == "Email Ines Carvalho"
    assert (email["preview"]["from"], email["preview"]["outside"]) == ("care@harborpine.example", True)

    table = call("plan_delete_stale_records", DELETION)
    assert table["summary"] == "Delete 2 export files"
    assert [row[0] for row in table["preview"]["rows"]] == ["E-1001", "E-1002"]
    assert len(table["preview"]["columns"]) == len(table["preview"]["rows"][0])


def test_reading_connections_cannot_write(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"), store.reading() as db:
        db.execute("DELETE FROM customers")


# Keys, reconcile, undo


@pytest.mark.parametrize("name", EFFECTS)
def test_a_repeat_with_the_same_key_changes_nothing(call: Call, store: Store, name: str) -> None:
    first = call(name, EFFECTS[name], "k1")
    after = contents(store)
    assert call(name, EFFECTS[name], "k1") == {**first, "repeat": True}
    assert contents(store) == after


def test_a_key_is_not_shared_by_two_calls(call: Call, store: Store) -> None:
    call("issue_refund", REFUND, "k1")
    after = contents(store)
    for name, arguments in [("issue_refund", {**REFUND, "amount": 10.0}), ("send_email", EMAIL)]:
        with pytest.raises(ShopError, match="already used"):
            call(name, arguments, "k1")
    assert contents(store) == after


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("key", [None, "", "k" * 201, 7])
def test_an_effect_without_a_usable_key_is_refused(store: Store, name: str, key: object) -> None:
    before = contents(store)
    with pytest.raises(ShopError, match="idempotency key"):
        tools.call(store, name, EFFECTS[name], key)
    assert contents(store) == before


def test_reconcile_tells_what_happened(call: Call) -> None:
    with pytest.raises(ShopError):
        call("issue_refund", {**REFUND, "amount": 1000}, "k1")
    assert call("reconcile_effect", {"idempotency_key": "k1"}) == {"outcome": "did_not_happen"}
    call("issue_refund", REFUND, "k1")
    assert call("reconcile_effect", {"idempotency_key": "k1"}) == {"outcome": "happened"}


def test_undo_puts_the_old_values_back_once(call: Call, store: Store) -> None:
    before = call("get_customer", {"customer": "C-20917"})
    call("update_customer", CHANGES, "k1")
    assert call("undo_update_customer", {"idempotency_key": "k1"})["repeat"] is False
    assert call("get_customer", {"customer": "C-20917"}) == {**before, "version": 3}
    after = contents(store)
    assert call("undo_update_customer", {"idempotency_key": "k1"})["repeat"] is True
    assert contents(store) == after


def test_undo_is_refused_when_the_record_went_on(call: Call, store: Store) -> None:
    call("update_customer", CHANGES, "k1")
    call("update_customer", {"customer": "C-20917", "changes": {"notes": "Called back."}}, "k2")
    after = contents(store)
    with pytest.raises(ShopError, match="changed again since"):
        call("undo_update_customer", {"idempotency_key": "k1"})
    assert contents(store) == after


@pytest.mark.parametrize("key", ["never", "refund"])
def test_undo_needs_an_update_under_its_key(call: Call, key: str) -> None:
    call("issue_refund", REFUND, "refund")
    with pytest.raises(ShopError, match="no customer update"):
        call("undo_update_customer", {"idempotency_key": key})


# The file, and several at once


def test_many_that_start_together_seed_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "shop.sqlite3"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Store(path).prepare(), range(8)))
    assert len(contents(Store(path))["tickets"]) == len(seed.TICKETS)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_file_is_kept_when_it_is_opened_again(call: Call, store: Store) -> None:
    call("issue_refund", REFUND, "k1")
    before = contents(store)
    store.prepare()
    assert contents(store) == before


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    text, database = tmp_path / "notes.txt", tmp_path / "other.sqlite3"
    text.write_text("not a database, but long enough to look at. " * 40)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("CREATE TABLE mine (id INTEGER)")
    for path, problem in [(text, "not a database"), (database, "a database of something else")]:
        with pytest.raises(ShopError, match=problem):
            Store(path).prepare()


def test_an_effect_holds_the_write_lock_from_its_first_check(store: Store) -> None:
    def apply(db: sqlite3.Connection) -> dict[str, Any]:
        other = sqlite3.connect(store.path, timeout=0)
        with closing(other), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        return {}

    assert store.effect("k1", "probe", {}, apply) == {"repeat": False}


def test_threads_racing_for_the_rest_of_an_order_cannot_overdraw_it(store: Store) -> None:
    def refund(number: int) -> bool:
        try:
            tools.call(store, "issue_refund", {**REFUND, "amount": 50.0}, f"k{number}")
        except ShopError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(refund, range(6)))
    assert done.count(True) == 2
    assert tools.call(store, "get_order", {"order": "48213"})["refunded"] == 100.0


# The command line


def test_the_ledger_prints_as_text_and_as_json(call: Call, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    call("update_customer", CHANGES, "k1")
    assert main(["ledger", "--data", str(store.path), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["effects"]
    assert (entry["key"], entry["tool"], entry["arguments"]) == ("k1", "update_customer", CHANGES)
    assert main(["ledger", "--data", str(store.path)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("1 effect\n")
    assert "update_customer" in text


def test_the_ledger_makes_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "missing.sqlite3"
    assert main(["ledger", "--data", str(path)]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert not path.exists()


# The agents that work here


def test_sample_agents_use_tools_that_exist() -> None:
    agents = json.loads((SAMPLES / "agents.json").read_text())
    tasks = json.loads((SAMPLES / "tasks.json").read_text())
    slugs = {agent["slug"] for agent in agents}
    assert set(tasks) == {"refund-desk", "supplier-research", "nightly-cleanup", "report-editor"} < slugs
    assert {slug for agent in agents for slug in agent["subagents"]} == slugs - set(tasks)
    for agent in agents:
        shop = {grant["name"].removeprefix("shop.") for grant in agent["tools"] if grant["name"].startswith("shop.")}
        assert shop <= {tool.name for tool in (*tools.READS, *tools.EFFECTS)}
        assert {grant["policy"] for grant in agent["tools"] if grant["name"] == "shop.send_email"} <= {"review"}
