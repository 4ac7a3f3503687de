"""The tools that change something. Each function runs inside the ledger's immediate transaction, so the check it begins
with still holds when it writes: two calls that race cannot both pass."""

from __future__ import annotations

import sqlite3

from runs.samples.shop import arguments as args
from runs.samples.shop.plans import check_changes, check_records, check_refund, is_outside
from runs.samples.shop.reads import find, money
from runs.samples.shop.store import JsonObject, ShopError, Store, recorded

UNDO_CUSTOMER = "undo_update_customer"


def issue_refund(db: sqlite3.Connection, call: args.IssueRefund) -> JsonObject:
    refund = check_refund(db, call)
    order = refund.order
    db.execute(
        'UPDATE orders SET refunded_cents = refunded_cents + ?, version = version + 1 WHERE "order" = ?',
        (call.cents, call.order),
    )
    number = db.execute(
        'INSERT INTO refunds ("order", cents, reason) VALUES (?, ?, ?)', (call.order, call.cents, call.reason)
    ).lastrowid
    return {
        "refund": f"R-{number}",
        "order": call.order,
        "amount": money(call.cents),
        "currency": order["currency"],
        "payment": {"method": order["method"], "ending": order["ending"]},
        "refunded": money(order["refunded_cents"] + call.cents),
        "stays_paid": money(refund.stays_paid),
        "version": order["version"] + 1,
    }


def update_customer(db: sqlite3.Connection, call: args.UpdateCustomer) -> JsonObject:
    """Fields that hold the wanted value already are left alone; without any other, the row keeps its version."""
    customer, changed = check_changes(db, call)
    if changed:
        write_customer(db, customer, {field: each["after"] for field, each in changed.items()})
    version = customer["version"] + (1 if changed else 0)
    return {"customer": call.customer, "changed": changed, "version": version}


def write_customer(db: sqlite3.Connection, customer: sqlite3.Row, values: JsonObject) -> None:
    db.execute(
        "UPDATE customers SET name = :name, email = :email, preferred_contact = :preferred_contact,"
        " damage_claims_12m = :damage_claims_12m, notes = :notes, version = version + 1 WHERE customer = :customer",
        {**dict(customer), **values},
    )


def send_email(db: sqlite3.Connection, call: args.SendEmail) -> JsonObject:
    """Into the outbox: the sample shop has no mail server, and must never reach a real one."""
    number = db.execute(
        'INSERT INTO outbox ("to", subject, body) VALUES (?, ?, ?)', (call.to, call.subject, call.body)
    ).lastrowid
    return {"email": f"M-{number}", "to": call.to, "subject": call.subject, "outside": is_outside(call.to)}


def delete_stale_records(db: sqlite3.Connection, call: args.DeleteStaleRecords) -> JsonObject:
    """All or none: one id that may not be deleted refuses the whole call."""
    rows = check_records(db, call)
    db.executemany("DELETE FROM records WHERE record = ?", [(row["record"],) for row in rows])
    return {
        "kind": call.kind,
        "deleted": [row["record"] for row in rows],
        "count": len(rows),
        "size_kb": sum(row["size_kb"] for row in rows),
    }


def undo_update_customer(store: Store, call: args.EffectKey) -> JsonObject:
    """Puts back what an update replaced. Its own ledger key derives from the update's, so that it happens once."""
    key = call.idempotency_key
    return store.effect(f"undo:{key}", UNDO_CUSTOMER, call.to_dict(), lambda db: undo_customer(db, key))


def undo_customer(db: sqlite3.Connection, key: str) -> JsonObject:
    entry = recorded(db, key)
    if entry is None or entry["tool"] != "update_customer":
        raise ShopError("there is no customer update under this key")
    done = entry["result"]
    customer = find(db, "customer", done["customer"])
    if customer["version"] != done["version"]:
        raise ShopError(f"customer {done['customer']} was changed again since; nothing was undone")
    restored = {field: each["before"] for field, each in done["changed"].items()}
    if restored:
        write_customer(db, customer, restored)
    version = done["version"] + (1 if restored else 0)
    return {"customer": done["customer"], "restored": restored, "version": version}
