"""The rows of a run's timeline. One value, one template: the page, htmx and the socket show the very same HTML."""

from __future__ import annotations

import json
import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from django.template.loader import render_to_string

from runs.engine import outputs
from runs.models import Batch, Run, Step

MOST_STEPS = 200
LONGEST_TEXT = 8_000

PRICED = frozenset({"plan", "model", "evaluate"})  # what a sub-agent costs stands with its run
FILTERS = {"plan": "model", "model": "model", "tool": "tools", "delegate": "tools"}
FILTERS |= {"evaluate": "evaluations", "guardrail": "guardrails"}
TOOK_NOTHING = frozenset({"message", "guardrail", "result", "delegate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """`group` is the title of the plan step that begins here; `batch_id` the batch that this step sent to the inbox."""

    run_id: uuid.UUID
    seq: int
    kind: str
    status: str
    title: str
    summary: str
    score: float | None
    took_ms: int | None
    is_priced: bool
    cost_usd: Decimal | None
    group: str
    filter: str
    batch_id: uuid.UUID | None
    batch_number: int | None

    @property
    def failed(self) -> bool:
        return self.status in {"error", "timeout", "denied"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightRow:
    """The call that is being made now. Its number is the one its step will have, so that the step takes its place."""

    key: str
    seq: int
    kind: str
    title: str
    model: str
    started_at: str
    text: str

    @property
    def length(self) -> int:
        return len(self.text)


def rows_after(run: Run, seq: int) -> list[StepRow]:
    return _rows(run, list(run.steps.filter(seq__gt=seq).order_by("seq")[:MOST_STEPS]))


def newest_rows(run: Run, before: int | None = None) -> list[StepRow]:
    """The last `MOST_STEPS` rows, or those before a number."""
    found = run.steps.filter(seq__lt=before) if before is not None else run.steps.all()
    return _rows(run, list(found.order_by("-seq")[:MOST_STEPS])[::-1])


def render_row(row: StepRow) -> str:
    return render_to_string("runs/_step_row.html", {"row": row})


def render_flight(flight: FlightRow) -> str:
    return render_to_string("runs/_step_flight.html", {"flight": flight})


def flight_row(begun: Mapping[str, Any] | None, last_seq: int) -> FlightRow | None:
    """None unless it is the very next step: neither one that has landed nor one whose predecessor is not shown yet."""
    if begun is None or begun.get("seq") != last_seq + 1:
        return None
    return FlightRow(
        key=str(begun["key"]),
        seq=last_seq + 1,
        kind=str(begun["kind"]),
        title=str(begun["title"]),
        model=str(begun.get("model") or begun.get("tool") or ""),
        started_at=str(begun.get("started_at") or ""),
        text=plain(str(begun.get("text") or "")),
    )


def plain(text: str) -> str:
    """Characters that a reader can't see become one visible mark each, so that offsets into the text stay true."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_hidden(character) else character for character in text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character)[0] == "C" and character not in "\n\t"


def _rows(run: Run, steps: Sequence[Step]) -> list[StepRow]:
    if not steps:
        return []
    shown = (
        run.steps.filter(seq__lt=steps[0].seq, plan_step__isnull=False)
        .order_by("-seq")
        .values_list("plan_step", flat=True)
        .first()
    )
    batches = {f"ask:{batch.key}": batch for batch in run.batches.only("key", "number", "run_id")}
    titles = [str(step.get("title", "")) for step in (run.plan or {}).get("steps", [])]
    rows = []
    for step in steps:
        group = ""
        if step.plan_step is not None and step.plan_step != shown:
            shown = step.plan_step
            group = titles[shown] if shown < len(titles) else ""
        rows.append(_row(run, step, group, batches.get(step.key)))
    return rows


def _row(run: Run, step: Step, group: str, batch: Batch | None) -> StepRow:
    never_ran = (step.kind == "approval" or step.status == "denied") and not step.duration_ms
    return StepRow(
        run_id=run.id,
        seq=step.seq,
        kind=step.kind,
        status=step.status,
        title=step.title,
        summary=step.summary,
        score=step.score,
        took_ms=None if never_ran or step.kind in TOOK_NOTHING else step.duration_ms,
        is_priced=step.kind in PRICED,
        cost_usd=step.cost_usd,
        group=group,
        filter=FILTERS.get(step.kind, "other"),
        batch_id=batch.id if batch else None,
        batch_number=batch.number if batch else None,
    )


# --- what is behind a row --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One text of a step. `rest` is the number of characters that only the trace shows; `given` how many of an output
    the model was given, and of how many, when that was not all."""

    title: str
    text: str
    is_prose: bool
    rest: int
    given: tuple[int, int] | None = None


def parts_of(step: Step) -> list[Part]:
    """Needs the payload selected. Error and reasoning first, then output and input."""
    payload = step.payload
    found = [
        _part("Error", payload.error, is_prose=True),
        _part("Reasoning", payload.reasoning, is_prose=True),
        replace(_part("Output", payload.output), given=outputs.given(payload.output) if step.kind == "tool" else None),
        _part("Input", payload.input),
    ]
    return [part for part in found if part.text]


def _part(title: str, value: Any, *, is_prose: bool = False) -> Part:
    text = value if isinstance(value, str) else _as_json(value)
    return Part(
        title=title,
        text=text[:LONGEST_TEXT],
        is_prose=is_prose or isinstance(value, str),
        rest=max(0, len(text) - LONGEST_TEXT),
    )


def _as_json(value: Any) -> str:
    return "" if value in (None, "", [], {}) else json.dumps(value, indent=2, ensure_ascii=False)


def counts_by_filter(kinds: Iterable[tuple[str, int]]) -> dict[str, int]:
    counts = dict.fromkeys(("all", *FILTERS.values()), 0)
    for kind, count in kinds:
        counts["all"] += count
        if kind in FILTERS:
            counts[FILTERS[kind]] += count
    return counts
