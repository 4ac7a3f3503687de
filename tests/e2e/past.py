"""A few days of work for lists, charts and pictures: runs of all three agents that ended in different ways."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass

from tests.site import Site

# Which times of a table lie back with a run, and how its rows know their run.
TIMES = (
    ("runs_run", ("created_at", "started_at", "ended_at"), "id = ?"),
    ("runs_step", ("started_at",), "run_id = ?"),
    ("runs_batch", ("created_at", "closed_at"), "run_id = ?"),
    ("runs_action", ("created_at", "decided_at", "executed_at"), "run_id = ?"),
    ("approvals_decision", ("at",), "action_id IN (SELECT id FROM runs_action WHERE run_id = ?)"),
)


@dataclass(frozen=True)
class Waiting:
    refunds: str
    cleanup: str
    supplier: str


def make_past(site: Site) -> None:
    """Each day of it is made as if it were today, then set back."""
    for name, role in (("marco", "approver"), ("ana", "operator")):
        site.command("create_user", name, "--role", role)
    # A name that does not fit a phone's line.
    names = "first_name = 'Dana', last_name = 'Okafor-Winterbottom'"
    change(site, f"UPDATE accounts_user SET {names} WHERE username = 'admin'")
    # Dana launches and decides in these tests, which a team of several would not let her by itself.
    change(site, "UPDATE accounts_team SET name = 'Harbor & Pine', separation = 'off'")
    for day in (5, 4, 3, 1, 0):
        site.renew_shop()
        site.model.pace = 0 if day else 250  # today's runs last as long as people see
        set_back(site, day, a_day(site, day))
    site.command("rollup", "--rebuild")


def a_day(site: Site, day: int) -> list[str]:
    refunds = site.launch()
    cleanup = site.launch("nightly-cleanup")
    done = [refunds, cleanup]
    if day % 2:
        supplier = site.launch("supplier-research", "interactive")
        late = site.launch("refund-desk", "batch", "Work through the requests tagged late-delivery.")
        short = site.launch("refund-desk", limits={"max_steps": 12})
        site.wait(supplier, "waiting")
        site.decide(supplier, "approve")
        done += [supplier, late, short]
    for run_id in (refunds, cleanup):
        site.wait(run_id, "waiting")
    fourth = "reject" if day % 2 else "approve"
    site.decide(refunds, "approve", "approve", "approve", fourth, change={"amount": 60} if day == 0 else None)
    site.decide(cleanup, "approve", "approve", "reject", note="Keep the carts until the campaign is over.")
    for run_id in done:
        site.wait(run_id)
    if day == 4:
        site.renew_shop()
        done.append(site.parked())
        site.api(f"/runs/{done[-1]}/cancel", {})
    return done


def leave_waiting(site: Site) -> Waiting:
    """What waits for a person now: a batch of refunds, one of deletions, one e-mail."""
    site.start_over()
    site.wait(site.launch(mode="dry_run"))
    runs = [site.launch("nightly-cleanup"), site.launch("supplier-research", "interactive"), site.launch()]
    for run_id in runs:
        site.wait(run_id, "waiting")
    return Waiting(refunds=runs[2], cleanup=runs[0], supplier=runs[1])


def set_back(site: Site, days: int, runs: list[str]) -> None:
    for table, columns, where in TIMES:
        moved = ", ".join(f"{column} = strftime('%Y-%m-%d %H:%M:%f', {column}, '-{days} days')" for column in columns)
        for run_id in runs:
            change(site, f"UPDATE {table} SET {moved} WHERE {where}", uuid.UUID(run_id).hex)


def change(site: Site, statement: str, *values: str) -> None:
    """Past the product: no part of it sets clocks back."""
    with closing(sqlite3.connect(site.up.data_dir / "agentsite.sqlite3", timeout=20)) as db, db:
        assert db.execute(statement, values).rowcount >= 0
