"""What each effect would do: summary, preview and preconditions, or the refusal that the effect itself would meet.
Plans run on a connection that cannot write. Preconditions name only what the effect rests on, so that two actions of
one batch on the same customer do not make each other stale."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from runs.samples.shop import arguments as args
from runs.samples.shop.reads import days_ago, find
from runs.samples.shop.store import JsonObject, ShopError, Store

COMPANY_DOMAIN = "harborpine.example"
SENDER = f"care@{COMPANY_DOMAIN}"
FRESH_DAYS = 30
NOUNS = {
    "exports": ("export file", "export files"),
    "tickets": ("solved ticket", "solved tickets"),
    "carts": ("abandoned cart", "abandoned carts"),
}


@dataclass(frozen=True, slots=True)
class Refund:
    """An order with what this refund leaves of it, in cents."""

    order: sqlite3.Row
    stays_paid: int


def check_refund(db: sqlite3.Connection, call: args.IssueRefund) -> Refund:
    order = find(db, "order", call.order)
    left = order["total_cents"] - order["refunded_cents"]
    if call.cents > left:
        raise ShopError(
            f"{decimal(call.cents)} is more than the {decimal(left)} left to refund on order {call.order}"
            f" ({decimal(order['refunded_cents'])} of {decimal(order['total_cents'])} refunded already)"
        )
    return Refund(order=order, stays_paid=left - call.cents)


def check_changes(db: sqlite3.Connection, call: args.UpdateCustomer) -> tuple[sqlite3.Row, JsonObject]:
    """The customer and the fields that really change, as `{field: {before, after}}`."""
    customer = find(db, "customer", call.customer)
    wanted = call.changes.to_dict()
    changed = {
        field: {"before": customer[field], "after": value}
        for field, value in wanted.items()
        if customer[field] != value
    }
    return customer, changed


def check_records(db: sqlite3.Connection, call: args.DeleteStaleRecords) -> list[sqlite3.Row]:
    singular, _ = NOUNS[call.kind]
    rows = []
    for record in call.ids:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM records WHERE record = ? AND kind = ?", (record, call.kind)
        ).fetchone()
        if row is None:
            raise ShopError(f"there is no {singular} {record}; nothing was deleted")
        if row["last_used_days_ago"] < FRESH_DAYS:
            raise ShopError(
                f"{singular} {record} was used {row['last_used_days_ago']} days ago, and only what was not used for"
                f" {FRESH_DAYS} days may be deleted; nothing was deleted"
            )
        rows.append(row)
    return rows


def is_outside(address: str) -> bool:
    return address.rsplit("@", 1)[-1].casefold() != COMPANY_DOMAIN


def plan_issue_refund(store: Store, call: args.IssueRefund) -> JsonObject:
    with store.reading() as db:
        refund = check_refund(db, call)
        name = find(db, "customer", refund.order["customer"])["name"]
    order = refund.order
    method = f"{order['method']} ending {order['ending']}"
    return planned(
        summary=f"Refund ${decimal(call.cents)} to {name}",
        preview={
            "type": "amount",
            "amount": decimal(call.cents),
            "currency": order["currency"],
            "to": name,
            "method": method,
            "method_note": "the card used for the order",
            "lines": [
                {"label": f"Order #{order['order']}", "amount": decimal(order["total_cents"])},
                {"label": "Refunded before", "amount": decimal(order["refunded_cents"])},
                {"label": "This refund", "amount": decimal(call.cents)},
                {"label": "Stays paid", "amount": decimal(refund.stays_paid)},
            ],
            "irreversible": True,
        },
        preconditions={
            "order": order["order"],
            "order_version": order["version"],
            "refunded": decimal(order["refunded_cents"]),
            "payment": method,
        },
    )


def plan_update_customer(store: Store, call: args.UpdateCustomer) -> JsonObject:
    with store.reading() as db:
        customer, changed = check_changes(db, call)
    fields = [{"field": name, "now": each["before"], "after": each["after"]} for name, each in changed.items()]
    return planned(
        summary=f"Change {count(len(fields), 'field', 'fields')} on customer {call.customer}",
        preview={"type": "record", "record": f"customer {call.customer}", "fields": fields, "irreversible": False},
        preconditions={"customer": call.customer, "customer_version": customer["version"]},
    )


def plan_send_email(store: Store, call: args.SendEmail) -> JsonObject:
    with store.reading() as db:
        known = db.execute(
            "SELECT customer, name FROM customers WHERE lower(email) = lower(?) ORDER BY customer", (call.to,)
        ).fetchone()
    return planned(
        summary=f"Email {known['name'] if known else call.to}",
        preview={
            "type": "email",
            "from": SENDER,
            "to": call.to,
            "to_name": known["name"] if known else "",
            "subject": call.subject,
            "body": call.body,
            "outside": is_outside(call.to),
            "irreversible": True,
        },
        preconditions={"to": call.to, "customer": known["customer"] if known else None},
    )


def plan_delete_stale_records(store: Store, call: args.DeleteStaleRecords) -> JsonObject:
    with store.reading() as db:
        rows = check_records(db, call)
    return planned(
        summary=f"Delete {count(len(rows), *NOUNS[call.kind])}",
        preview={
            "type": "table",
            "columns": ["Record", "Label", "Last used", "Size"],
            "rows": [
                [row["record"], row["label"], days_ago(store, row["last_used_days_ago"]), f"{row['size_kb']:,} kB"]
                for row in rows
            ],
            "irreversible": True,
        },
        preconditions={"kind": call.kind, "versions": {row["record"]: row["version"] for row in rows}},
    )


def planned(*, summary: str, preview: JsonObject, preconditions: JsonObject) -> JsonObject:
    return {"summary": summary, "preview": preview, "preconditions": preconditions}


def decimal(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def count(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"
