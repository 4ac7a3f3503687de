"""A whole trace as plain JSON, and a cost report as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

from runs import presenters
from runs.asked import Note
from runs.models import Run
from traces import whole
from traces.costs import Report, Row
from traces.json_parts import Layout, written
from traces.otel import agent_name
from traces.whole import Totals


def trace_json(run: Run, notes: Iterable[Note], layout: Layout) -> Iterator[bytes]:
    """Needs agent, agent_version and owner, and author and step of notes selected. The totals are the sums of the steps
    that are in it."""
    totals = Totals()
    noted = [presenters.note_json(note) for note in notes]

    def steps() -> Iterator[dict[str, Any]]:
        for step in whole.steps(run):
            totals.add(step)
            yield presenters.step_json(step) | {"plan_step": step.plan_step}

    return written(lambda listed: _around(run, listed, noted, totals), steps(), layout)


def _around(run: Run, steps: list[Any], notes: list[dict[str, Any]], totals: Totals) -> dict[str, Any]:
    return {
        "trace_id": str(run.id),
        "number": run.number,
        "agent": run.agent.slug,
        "agent_name": agent_name(run),
        "agent_version": run.agent_version.number,
        "owner": run.owner.username,
        "task": run.task,
        "task_type": run.task_type,
        "mode": run.mode,
        "simulated": run.simulated,
        "plan": run.plan or {"steps": []},
        "steps": steps,
        "notes": notes,
        "result": run.result,
        "total_tokens": totals.prompt_tokens + totals.output_tokens,
        "total_cost_usd": presenters.money(totals.cost),
        "unpriced_steps": totals.unpriced_steps,
        "total_duration_ms": presenters.duration_ms(run),
        "total_wait_ms": presenters.waited_ms(run),
        "final_status": run.status,
        "stop_reason": run.stop_reason,
        "stop_detail": run.stop_detail,
        "parent": str(run.parent_id) if run.parent_id else None,
        "forked_from": str(run.forked_from_id) if run.forked_from_id else None,
        "created_at": presenters.time(run.created_at),
        "started_at": presenters.time(run.started_at),
        "ended_at": presenters.time(run.ended_at),
    }


def row_json(row: Row) -> dict[str, Any]:
    return {
        "key": row.key,
        **({"when": row.when} if row.when else {}),
        "runs": row.runs,
        "steps": row.steps,
        "cost": presenters.money(row.cost),
        "p50": presenters.money(row.p50),
        "p95": presenters.money(row.p95),
        "tokens": row.tokens,
        "cache_saved_usd": presenters.money(row.cache_saved_usd),
        "cache_read_saved_usd": presenters.money(row.saved_by_reads),
        "cache_write_paid_usd": presenters.money(row.paid_for_writes),
        "cache_expired_usd": presenters.money(row.lost_to_expiry),
        "unpriced_steps": row.unpriced_steps,
    }


COLUMNS = (
    "runs",
    "steps",
    "cost",
    "p50",
    "p95",
    "tokens",
    "cache_saved_usd",
    "cache_read_saved_usd",
    "cache_write_paid_usd",
    "cache_expired_usd",
    "unpriced_steps",
)


def costs_csv(report: Report) -> str:
    """The rows and a last line with the total; an unknown cost is left empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    by = report.by.split(",")
    writer.writerow([*by, *COLUMNS])
    for row in (*report.rows, report.total):
        values = row_json(row)
        keys = [_harmless(row.key), row.when][: len(by)]
        writer.writerow([*keys, *("" if values[name] is None else values[name] for name in COLUMNS)])
    return buffer.getvalue()


def _harmless(text: str) -> str:
    """A spreadsheet runs what begins like a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
