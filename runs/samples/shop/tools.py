"""The one visible table of the shop's tools, and the way a call takes through it. Knows nothing of MCP."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from runs.samples.shop import arguments as args
from runs.samples.shop import effects, plans, reads
from runs.samples.shop.arguments import Arguments, JsonObject
from runs.samples.shop.store import ShopError, Store

KEY_META = "agentsite/idempotency-key"
KEY_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopTool:
    """`run` gets the checked arguments and the idempotency key of the call, which only effects look at."""

    name: str
    description: str
    model: type[Arguments]
    run: Callable[[Store, Any, object], JsonObject]
    read_only: bool = True
    irreversible: bool = False
    meta: JsonObject = field(default_factory=dict)


def read(name: str, description: str, model: type[Arguments], run: Callable[[Store, Any], JsonObject]) -> ShopTool:
    return ShopTool(
        name=name,
        description=description,
        model=model,
        run=lambda store, checked, _key: run(store, checked),
        meta={"agentsite/risk": "low"},
    )


def effect(
    name: str,
    description: str,
    model: type[Arguments],
    apply: Callable[[sqlite3.Connection, Any], JsonObject],
    *,
    risk: str,
    undo: str | None = None,
) -> ShopTool:
    def run(store: Store, checked: Arguments, key: object) -> JsonObject:
        return store.effect(checked_key(name, key), name, checked.to_dict(), lambda db: apply(db, checked))

    meta = {
        "agentsite/risk": risk,
        "agentsite/plan": f"plan_{name}",
        "agentsite/reconcile": "reconcile_effect",
        **({"agentsite/undo": undo} if undo else {}),
    }
    return ShopTool(
        name=name,
        description=description,
        model=model,
        run=run,
        read_only=False,
        irreversible=undo is None,
        meta=meta,
    )


def plan(name: str, model: type[Arguments], run: Callable[[Store, Any], JsonObject]) -> ShopTool:
    return read(f"plan_{name}", f"What {name} would do with these arguments. Changes nothing.", model, run)


READS = (
    read("list_tickets", "Lists support tickets, if wanted by tag or status.", args.ListTickets, reads.list_tickets),
    read(
        "read_ticket",
        "Reads one ticket: what the customer wrote, and what the attached photos show.",
        args.ReadTicket,
        reads.read_ticket,
    ),
    read(
        "get_order",
        "Reads one order: lines and total, age in days, how it was paid, what was refunded, the carrier's note.",
        args.GetOrder,
        reads.get_order,
    ),
    read("get_customer", "Reads one customer's record.", args.GetCustomer, reads.get_customer),
    read("search_policy", "Finds sections of the shop's policy by words.", args.SearchPolicy, reads.search_policy),
    read(
        "search_suppliers",
        "Finds suppliers by words of product, name or country, with unit price (USD) and minimum order.",
        args.SearchSuppliers,
        reads.search_suppliers,
    ),
    read(
        "read_supplier",
        "Reads one supplier: also certificate, lead time, contact, and what a second source says of the certificate.",
        args.ReadSupplier,
        reads.read_supplier,
    ),
    read(
        "list_stale_records",
        "Lists exports, solved tickets or abandoned carts that were not used for a number of days.",
        args.ListStaleRecords,
        reads.list_stale_records,
    ),
)

EFFECTS = (
    effect(
        "issue_refund",
        "Pays part or all of an order back to the card it was paid with. Cannot be undone.",
        args.IssueRefund,
        effects.issue_refund,
        risk="critical",
    ),
    effect(
        "update_customer",
        "Changes fields of a customer's record. `notes` replaces the notes that are there.",
        args.UpdateCustomer,
        effects.update_customer,
        risk="medium",
        undo=effects.UNDO_CUSTOMER,
    ),
    effect(
        "send_email",
        f"Sends a plain-text email from {plans.SENDER}. Cannot be undone.",
        args.SendEmail,
        effects.send_email,
        risk="high",
    ),
    effect(
        "delete_stale_records",
        f"Deletes records of one kind for good. Refused when one was used in the last {plans.FRESH_DAYS} days.",
        args.DeleteStaleRecords,
        effects.delete_stale_records,
        risk="high",
    ),
)

TWINS = (
    plan("issue_refund", args.IssueRefund, plans.plan_issue_refund),
    plan("update_customer", args.UpdateCustomer, plans.plan_update_customer),
    plan("send_email", args.SendEmail, plans.plan_send_email),
    plan("delete_stale_records", args.DeleteStaleRecords, plans.plan_delete_stale_records),
    read(
        "reconcile_effect",
        "Says whether the effect that was called under an idempotency key happened.",
        args.EffectKey,
        reads.reconcile_effect,
    ),
    ShopTool(
        name=effects.UNDO_CUSTOMER,
        description="Puts back what update_customer replaced under a key, unless the record was changed again since.",
        model=args.EffectKey,
        run=lambda store, checked, _key: effects.undo_update_customer(store, checked),
        read_only=False,
        meta={"agentsite/risk": "medium"},
    ),
)

TOOLS: dict[str, ShopTool] = {tool.name: tool for tool in (*READS, *EFFECTS, *TWINS)}


def call(store: Store, name: str, arguments: JsonObject, key: object = None) -> JsonObject:
    """The tool's result. Raises `ShopError` for whatever the caller got wrong, and when the file is locked too long."""
    tool = TOOLS.get(name)
    if tool is None:
        raise ShopError(f"the shop has no tool {name}")
    try:
        checked = tool.model.model_validate(arguments)
    except ValidationError as error:
        raise ShopError(args.problems(error)) from error
    try:
        return tool.run(store, checked, key)
    except sqlite3.OperationalError as error:
        raise ShopError(f"the shop's file cannot be used now, nothing was changed: {error}") from error


def checked_key(tool: str, key: object) -> str:
    if key is None:
        raise ShopError(f"{tool} changes something and needs an idempotency key in _meta under {KEY_META}")
    if not isinstance(key, str) or not 0 < len(key) <= KEY_LENGTH:
        raise ShopError(f"the idempotency key in _meta under {KEY_META} must be a text of 1 to {KEY_LENGTH} characters")
    return key
