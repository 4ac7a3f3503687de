"""The tools that only read, and the row look-ups that plans and effects share. Money leaves as a JSON number."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable
from datetime import UTC, timedelta
from typing import Any

from runs.samples.shop import arguments as args
from runs.samples.shop.store import JsonObject, ShopError, Store, rfc3339

ONE = {
    "ticket": "SELECT * FROM tickets WHERE ticket = ?",
    "order": 'SELECT * FROM orders WHERE "order" = ?',
    "customer": "SELECT * FROM customers WHERE customer = ?",
    "supplier": "SELECT * FROM suppliers WHERE supplier = ?",
}
WORD = re.compile(r"[^\W_]{3,}")


def money(cents: int) -> float:
    return cents / 100


def find(db: sqlite3.Connection, noun: str, key: str) -> sqlite3.Row:
    """One row. Raises `ShopError` when there is none."""
    row: sqlite3.Row | None = db.execute(ONE[noun], (key,)).fetchone()
    if row is None:
        raise ShopError(f"there is no {noun} {key}")
    return row


def list_tickets(store: Store, call: args.ListTickets) -> JsonObject:
    with store.reading() as db:
        rows = db.execute(
            "SELECT * FROM tickets WHERE (:tag IS NULL OR tag = :tag) AND (:status IS NULL OR status = :status)"
            " ORDER BY ticket",
            {"tag": call.tag, "status": call.status},
        ).fetchall()
    return {"tickets": [ticket_line(store, row) for row in rows]}


def ticket_line(store: Store, row: sqlite3.Row) -> JsonObject:
    names = ("ticket", "subject", "customer", "order", "tag", "status")
    # To the hour, so that the same ticket reads the same when it is looked at twice.
    opened = store.now().astimezone(UTC) - timedelta(hours=row["opened_hours_ago"])
    opened_at = opened.replace(minute=0, second=0, microsecond=0)
    return {**{name: row[name] for name in names}, "opened_at": rfc3339(opened_at)}


def read_ticket(store: Store, call: args.ReadTicket) -> JsonObject:
    with store.reading() as db:
        row = find(db, "ticket", call.ticket)
    return {**ticket_line(store, row), "message": row["message"], "photos": json.loads(row["photos"])}


def get_order(store: Store, call: args.GetOrder) -> JsonObject:
    with store.reading() as db:
        row = find(db, "order", call.order)
    return {
        "order": row["order"],
        "customer": row["customer"],
        "item": row["item"],
        "lines": [{"item": line["item"], "price": money(line["cents"])} for line in json.loads(row["lines"])],
        "total": money(row["total_cents"]),
        "currency": row["currency"],
        "ordered_on": days_ago(store, row["ordered_days_ago"]),
        "days_old": row["ordered_days_ago"],
        "payment": {"method": row["method"], "ending": row["ending"]},
        "refunded": money(row["refunded_cents"]),
        "carrier_note": row["carrier_note"],
        "version": row["version"],
    }


def days_ago(store: Store, days: int) -> str:
    return (store.today - timedelta(days=days)).isoformat()


def get_customer(store: Store, call: args.GetCustomer) -> JsonObject:
    with store.reading() as db:
        return dict(find(db, "customer", call.customer))


def search_policy(store: Store, call: args.SearchPolicy) -> JsonObject:
    with store.reading() as db:
        rows = [dict(row) for row in db.execute("SELECT * FROM policy ORDER BY section")]
    return {"sections": matching(call.query, rows)}


def search_suppliers(store: Store, call: args.SearchSuppliers) -> JsonObject:
    names = ("supplier", "name", "country", "product", "unit_price", "minimum_order", "url")
    with store.reading() as db:
        rows = [supplier(row) for row in db.execute("SELECT * FROM suppliers ORDER BY supplier")]
    return {"suppliers": matching(call.query, [{name: row[name] for name in names} for row in rows])}


def read_supplier(store: Store, call: args.ReadSupplier) -> JsonObject:
    with store.reading() as db:
        return supplier(find(db, "supplier", call.supplier))


def supplier(row: sqlite3.Row) -> JsonObject:
    found = dict(row)
    return {**found, "unit_price": money(found.pop("unit_cents"))}


def matching(query: str, rows: Iterable[JsonObject]) -> list[JsonObject]:
    """Rows that hold any word of the query, those with most of them first."""
    words = [stem(word) for word in WORD.findall(query.casefold())]
    scored = [(score(words, row), row) for row in rows]
    return [row for points, row in sorted(scored, key=lambda pair: -pair[0]) if points]


def stem(word: str) -> str:
    return word.removesuffix("s") if len(word) > 3 else word


def score(words: Iterable[str], row: JsonObject) -> int:
    text = " ".join(str(value) for value in row.values()).casefold()
    return sum(word in text for word in words)


def list_stale_records(store: Store, call: args.ListStaleRecords) -> JsonObject:
    with store.reading() as db:
        rows = db.execute(
            "SELECT * FROM records WHERE kind = ? AND last_used_days_ago > ? ORDER BY last_used_days_ago DESC, record",
            (call.kind, call.older_than_days),
        ).fetchall()
    return {"records": [record_line(store, row) for row in rows]}


def record_line(store: Store, row: sqlite3.Row) -> JsonObject:
    return {
        "id": row["record"],
        "kind": row["kind"],
        "label": row["label"],
        "last_used_on": days_ago(store, row["last_used_days_ago"]),
        "size_kb": row["size_kb"],
    }


def reconcile_effect(store: Store, call: args.EffectKey) -> JsonObject:
    """`happened` or `did_not_happen`: change and ledger entry share a transaction, so there is no third answer."""
    with store.reading() as db:
        found: Any = db.execute("SELECT 1 FROM effects WHERE key = ?", (call.idempotency_key,)).fetchone()
    return {"outcome": "happened" if found else "did_not_happen"}
