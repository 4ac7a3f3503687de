"""The statements that every step makes, written out once.

They are the engine's hot path: made by the ORM each time, they took two thirds of a step. On PostgreSQL a step is one
statement, and so one round trip and one commit; SQLite has no such statement, but no network either. Whatever else
belongs to the step joins the same transaction. Column names come from the models.
"""
# ruff: noqa: S608 - names come from the models, values are parameters

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from django.db import connection, models, transaction
from django.utils import timezone

from runs import documents, prepared
from runs.asked import RunMessage
from runs.engine.types import WORK_KINDS, RunStatus, Step, StepKind
from runs.models import Run, SearchDocument, StepPayload
from runs.models import Step as StepRow

MODEL_CALLS = (StepKind.MODEL, StepKind.PLAN, StepKind.EVALUATE)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What people want of a run, as of the last write of its row: their wish, and how many messages they have sent."""

    wish: str
    messages: int


def record(run: Run, owner: str, changes: Mapping[str, Any], step: Step, expired: int) -> Wishes | None:
    """Writes the run's columns, the step, its payload and its search document while `owner` holds the run at its last
    seq; else None and nothing. `expired` are the tokens of a prompt cache that ran out before this call. Call it in a
    transaction when more belongs to the step; by itself it is one."""
    row = _row(run, step, expired)
    texts = {name: getattr(step, name) for name in ("input", "output", "reasoning", "error", "sealed")}
    payload = StepPayload(step=row, **texts)
    rows: tuple[models.Model, ...] = (row, payload, documents.step_document(run, row, payload))
    names = tuple(changes)
    held = (run.id, RunStatus.RUNNING.value, owner, run.last_seq)
    columns, updated = _fields(Run, (*names, *_HELD)), [*changes.values(), *held]
    if connection.vendor == "postgresql":
        values = prepared.texts(columns, updated)
        for each in rows:
            values += prepared.texts(_own(type(each)), _values(each))
        _, found = prepared.execute(_in_one(names), values)
        return Wishes(*found) if found else None
    with connection.cursor() as cursor, transaction.atomic():
        cursor.execute(_update(Run, names, _HELD), _saved(columns, updated))
        if cursor.rowcount != 1:
            return None
        for each in rows:
            cursor.execute(_insert(type(each)), _saved(_own(type(each)), _values(each)))
        cursor.execute(_wishes_of(), _saved(_fields(Run, ("id",)), (run.id,)))
        return Wishes(*cursor.fetchone())


def wishes(run_id: uuid.UUID, owner: str) -> Wishes | None:
    """Read afresh; None when `owner` does not hold the run."""
    with connection.cursor() as cursor:
        held = _saved(_fields(Run, _HELD[:3]), (run_id, RunStatus.RUNNING, owner))
        cursor.execute(f"{_wishes_of()} AND {_where(Run, _HELD[1:3])}", held)
        found = cursor.fetchone()
    return Wishes(*found) if found else None


def reserve(run_id: uuid.UUID, owner: str, usd: Decimal, input_tokens: int, output_tokens: int) -> bool:
    """Whether the worst case of a call fits the run's limits, and then holds it back: one conditional UPDATE."""
    worst = (usd, input_tokens, output_tokens)
    columns, values = _fields(Run, (*_RESERVED, "id", "lease_owner", *_RESERVED)), (*worst, run_id, owner, *worst)
    if connection.vendor == "postgresql":
        changed, _ = prepared.execute(_reservation(), prepared.texts(columns, values))
        return changed == 1
    with connection.cursor() as cursor:
        cursor.execute(_reservation(), _saved(columns, values))
        return bool(cursor.rowcount == 1)


def totals_after(run: Run, step: Step) -> dict[str, Any]:
    """The run's totals with this step. Absolute values, exact in Decimal: the lease makes this their only writer."""
    usage, cost = step.usage, step.price.usd
    return {
        "last_seq": step.seq,
        "work_steps": run.work_steps + (step.kind in WORK_KINDS),
        "model_calls": run.model_calls + (step.kind in MODEL_CALLS),
        "tool_calls": run.tool_calls + (step.kind is StepKind.TOOL),
        "unpriced_steps": run.unpriced_steps + (cost is None),
        "lowest_score": min((each for each in (run.lowest_score, step.score) if each is not None), default=None),
        "input_tokens": run.input_tokens + usage.input_tokens,
        "output_tokens": run.output_tokens + usage.output_tokens,
        "cache_read_tokens": run.cache_read_tokens + usage.cache_read_tokens,
        "cache_write_tokens": run.cache_write_tokens + usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
        "cost_usd": run.cost_usd + (cost or Decimal(0)),
        "lost_usd": run.lost_usd + step.price.lost_usd,
    }


def _row(run: Run, step: Step, expired: int) -> StepRow:
    usage = step.usage
    return StepRow(
        run_id=run.id,
        seq=step.seq,
        key=step.key,
        kind=step.kind.value,
        status=step.status.value,
        title=step.title[:200],
        summary=step.summary[:300],
        tool=step.tool[:120],
        tool_call_id=step.tool_call_id[:120],
        confidence=step.confidence,
        score=step.score,
        model=step.model[:120],
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_5m_tokens=usage.cache_write_5m_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
        cache_expired_tokens=expired,
        cost_usd=step.price.usd,
        price_id=step.price.price_id,
        price_terms=usage.terms[:40],
        started_at=step.started_at or timezone.now(),
        duration_ms=step.duration_ms,
        attempt=step.attempt,
        plan_step=step.plan_step,
        child_run_id=step.child_run or None,
    )


# --- SQL -------------------------------------------------------------------------------------------------------------

_HELD = ("id", "status", "lease_owner", "last_seq")
_RESERVED = ("reserved_usd", "reserved_input_tokens", "reserved_output_tokens")
_ROWS: tuple[type[models.Model], ...] = (StepRow, StepPayload, SearchDocument)


def _saved(fields: Iterable[models.Field[Any, Any]], values: Iterable[Any]) -> list[Any]:
    return [field.get_db_prep_save(value, connection) for field, value in zip(fields, values, strict=True)]


@cache
def _fields(model: type[models.Model], names: tuple[str, ...]) -> tuple[models.Field[Any, Any], ...]:
    return tuple(model._meta.get_field(name) for name in names)  # type: ignore[misc]


def _columns(model: type[models.Model], names: tuple[str, ...]) -> list[str]:
    return [f'"{field.column}"' for field in _fields(model, names)]


def _where(model: type[models.Model], names: tuple[str, ...]) -> str:
    table = model._meta.db_table
    return " AND ".join(f'"{table}".{column} = %s' for column in _columns(model, names))


@cache
def _update(model: type[models.Model], names: tuple[str, ...], held: tuple[str, ...]) -> str:
    changes = ", ".join(f"{column} = %s" for column in _columns(model, names))
    return f'UPDATE "{model._meta.db_table}" SET {changes} WHERE {_where(model, held)}'


def _values(row: models.Model) -> list[Any]:
    return [getattr(row, field.attname) for field in _own(type(row))]


@cache
def _own(model: type[models.Model]) -> tuple[models.Field[Any, Any], ...]:
    """Every column but a number that the database gives."""
    return tuple(field for field in model._meta.concrete_fields if not isinstance(field, models.AutoField))


@cache
def _insert(model: type[models.Model], source: str = "") -> str:
    """With `source`, a query of one row or none, nothing is inserted where there is none."""
    columns = ", ".join(f'"{field.column}"' for field in _own(model))
    values = ", ".join(f"%s::{_type(field)}" if source else "%s" for field in _own(model))
    rows = f"SELECT {values} FROM {source}" if source else f"VALUES ({values})"
    return f'INSERT INTO "{model._meta.db_table}" ({columns}) {rows}'


def _type(field: models.Field[Any, Any]) -> str:
    """A SELECT does not tell its columns' types to the parameters, as VALUES would."""
    return str(field.rel_db_type(connection) if field.is_relation else field.db_type(connection))


@cache
def _reservation() -> str:
    used = (
        ("max_cost_usd", '"cost_usd" + "lost_usd"'),
        ("max_input_tokens", '"input_tokens" + "cache_read_tokens" + "cache_write_tokens"'),
        ("max_output_tokens", '"output_tokens"'),
    )
    fits = " AND ".join(f'("{limit}" IS NULL OR "{limit}" >= {so_far} + %s)' for limit, so_far in used)
    return f"{_update(Run, _RESERVED, ('id', 'lease_owner'))} AND {fits}"


@cache
def _in_one(changes: tuple[str, ...]) -> str:
    returned = f'"{Run._meta.db_table}"."wish" AS wish, {_messages_of_run()} AS messages'
    inserts = ", ".join(f"row_{number} AS ({_insert(model, 'held')})" for number, model in enumerate(_ROWS))
    update = _update(Run, changes, _HELD)
    return f"WITH held AS ({update} RETURNING {returned}), {inserts} SELECT wish, messages FROM held"


def _wishes_of() -> str:
    return f'SELECT "wish", {_messages_of_run()} FROM "{Run._meta.db_table}" WHERE {_where(Run, ("id",))}'


def _messages_of_run() -> str:
    messages = RunMessage._meta.db_table
    return f'(SELECT count(*) FROM "{messages}" WHERE "{messages}"."run_id" = "{Run._meta.db_table}"."id")'
