"""What the trace page shows. Of a long run a window of rows is drawn, and payloads are read for that alone."""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django.db.models import Count, TextField
from django.db.models.functions import Cast, Substr
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from accounts.access import Access, get, rows
from runs import lifecycle, live, step_rows
from runs.beneath import DELEGATING, open_batches, shown_status
from runs.models import Action, Run, Step, StepPayload
from traces import noted, sharing
from traces.detail import detail
from traces.otel import agent_name
from traces.story import story
from traces.timeline import Nested, Row, RunFacts, Span, Timeline, place, timeline

LEGEND = (
    ("Plan", "fill-plan"),
    ("Model", "fill-model"),
    ("Tool", "fill-tool"),
    ("Evaluation", "fill-evaluate"),
    ("Sub-agent", "fill-delegate"),
    ("Waiting", "fill-waiting"),
)
WINDOW: Final = 60  # rows drawn at first
MORE: Final = 300  # rows that come with each look further
BEFORE: Final = 30  # rows above the chosen one, when it lies outside the first window
MOST_STEPS: Final = 20_000
DEEPEST: Final = 3  # levels of sub-agents
GIVEN = 200
IDS_AT_ONCE = 5_000  # a statement takes only so many parameters
_SUBJECT = re.compile(r':\s*(?:"([^"\\\\]{1,40})"|(-?[0-9][0-9.]{0,15}))(?=\s*[,}])')
_COLUMNS = (
    "run_id",
    "id",
    "seq",
    "kind",
    "status",
    "title",
    "started_at",
    "duration_ms",
    "summary",
    "tool",
    "cost_usd",
    "score",
    "plan_step",
    "attempt",
    "model",
    "child_run_id",
)


@dataclass(slots=True, kw_only=True)
class Loaded:
    """`step_ids` by the id of the row; `left_out` steps were not read, because there are too many."""

    run: Run
    spans: list[Span]
    step_ids: dict[tuple[str, int], uuid.UUID]
    left_out: int


@dataclass(slots=True, kw_only=True)
class Window:
    """`rows` of all, from `first` to before `end`; of those found by words the first, `not_shown` are the others.
    `up` and `down` say where more may be asked for."""

    rows: Sequence[Row]
    first: int
    end: int
    total: int
    up: bool = True
    down: bool = True
    not_shown: int = 0

    @property
    def above(self) -> int:
        return self.first if self.up else 0

    @property
    def above_from(self) -> int:
        return max(0, self.first - MORE)

    @property
    def below(self) -> int:
        return self.total - self.end if self.down else 0

    @property
    def below_to(self) -> int:
        return min(self.total, self.end + MORE)


def load(access: Access, run_id: Any) -> Loaded:
    """The run and its steps without their payloads, those of its sub-agents below the step that called them."""
    run = get(access, Run.objects.select_related("agent", "agent_version", "owner"), run_id)
    steps = rows(access, Step).filter(run=run).order_by("seq")
    found = list(steps.values_list(*_COLUMNS)[:MOST_STEPS])
    left_out = steps.count() - len(found) if len(found) == MOST_STEPS else 0
    loaded = Loaded(run=run, spans=[], step_ids={}, left_out=left_out)
    loaded.spans = [_span(row, "", loaded) for row in found]
    callers: dict[uuid.UUID, Span] = {}
    for row, span in zip(found, loaded.spans, strict=True):
        if row[15]:
            callers.setdefault(row[15], span)  # the step that began it; a later one only brings its answer
    _nest(access, loaded, callers, depth=1)
    flying = step_rows.flight_row(live.read_in_flight(run.id), run.last_seq) if run.status == "running" else None
    if flying is not None:
        loaded.spans.append(_in_flight(flying))
    return loaded


def _in_flight(step: step_rows.FlightRow) -> Span:
    """What the agent does at the moment, which is no step yet."""
    return Span(
        seq=step.seq,
        kind=step.kind,
        status="running",
        title=step.title,
        started_at=parse_datetime(step.started_at) or timezone.now(),
        duration_ms=0,
        tool=step.model if step.kind == "tool" else "",
        subject="running",
        costs=False,
    )


def _nest(access: Access, loaded: Loaded, callers: dict[uuid.UUID, Span], *, depth: int) -> None:
    room = MOST_STEPS - len(loaded.step_ids)
    if not callers or depth > DEEPEST or room <= 0:
        return
    runs = rows(access, Run).filter(id__in=list(callers)).select_related("agent", "agent_version")
    by_id = {run.id: run for run in runs}
    steps = rows(access, Step).filter(run_id__in=list(by_id)).order_by("run_id", "seq")
    found: dict[uuid.UUID, list[Span]] = defaultdict(list)
    below: dict[uuid.UUID, Span] = {}
    for row in steps.values_list(*_COLUMNS)[:room]:
        span = _span(row, _prefix(row[0]), loaded)
        found[row[0]].append(span)
        if row[15]:
            below.setdefault(row[15], span)
    for run_id, run in by_id.items():
        callers[run_id].below = Nested(run=run_facts(run, _prefix(run_id)), spans=found[run_id])
    _nest(access, loaded, below, depth=depth + 1)


def _prefix(run_id: uuid.UUID) -> str:
    return f"{run_id}_"


def _span(row: tuple[Any, ...], prefix: str, loaded: Loaded) -> Span:
    step_id, seq, kind, status, title, started_at, duration_ms, summary = row[1:9]
    tool, cost, score, plan, attempt, model = row[9:15]
    loaded.step_ids[prefix, seq] = step_id
    return Span(
        seq=seq,
        kind=kind,
        status=status,
        title=title,
        started_at=started_at,
        duration_ms=duration_ms,
        summary=summary,
        tool=tool,
        cost=cost,
        costs=bool(model) or cost is None or cost != 0,
        score=score,
        plan_step=plan,
        attempt=attempt,
    )


def page(
    access: Access,
    run_id: Any,
    *,
    seq: int | None,
    fold: bool,
    whole: str,
    find: str = "",
    first: int | None = None,
    base: str = "",
    all_notes: bool = False,
) -> dict[str, Any] | None:
    """The template's context; None when the run has no step of that number. Links begin with `base`, which is the
    run's own address unless told."""
    loaded = load(access, run_id)
    run = loaded.run
    asking = list(open_batches(access, run.id).values_list("run_id", flat=True)) if run.status == "waiting" else []
    status = shown_status(run.status, run.id not in asking and lifecycle.works_below(run.id))
    shown = timeline(run_facts(run, status=status), loaded.spans, fold=fold)
    chosen = seq if seq is not None else first_choice(shown, loaded.spans)
    pane = _pane(access, run, chosen, whole)
    if seq is not None and pane is None:
        return None
    counts = dict(Action.objects.filter(run=run).values_list("status").annotate(count=Count("id")).order_by())
    return {
        "run": run,
        "status": status,
        "asks": bool(asking),
        "base": base or _base(run),
        "sharing": sharing.shown(access, run),
        "run_notes": noted.on_run(access, run, whole=all_notes),
        "step_notes": noted.on_step(access, run, pane.step.seq, whole=all_notes) if pane else None,
        "agent_name": agent_name(run),
        "timeline": shown,
        "window": window(shown, loaded, chosen, find, first),
        "find": find,
        "bands": [place(row, shown.axis) for row in shown.rows if row.kind == "waiting"],
        "detail": pane,
        "chosen": chosen if pane else None,
        "fold": fold,
        "left_out": loaded.left_out,
        "story": story(
            status=status,
            stop_reason=run.stop_reason,
            stop_detail=run.stop_detail,
            last_step=max((span.seq for span in loaded.spans), default=0),
            actions=counts,
        ),
        "totals": totals(run, shown),
        "critical": _critical(shown, status),
        "legend": _legend(shown),
        "live": not run.is_ended,
    }


def _base(run: Run) -> str:
    return reverse("traces:trace", args=[run.id])


def more(access: Access, run_id: Any, *, fold: bool, first: int, end: int, up: bool, base: str = "") -> dict[str, Any]:
    """The context of rows from `first` to before `end`; `up` when they come above those that are there."""
    loaded = load(access, run_id)
    shown = timeline(run_facts(loaded.run), loaded.spans, fold=fold)
    first = max(0, first)
    end = min(end, first + MORE, len(shown.rows))
    found = _window(shown, loaded, range(first, max(first, end)))
    found.up, found.down = up, not up
    return {
        "run": loaded.run,
        "base": base or _base(loaded.run),
        "timeline": shown,
        "window": found,
        "bands": [place(row, shown.axis) for row in shown.rows if row.kind == "waiting"],
        "fold": fold,
    }


def pane(access: Access, run_id: Any, seq: int, *, whole: str, base: str = "") -> dict[str, Any] | None:
    run = get(access, Run.objects.select_related("agent", "agent_version", "owner"), run_id)
    found = _pane(access, run, seq, whole)
    notes = noted.on_step(access, run, seq) if found else None
    return found and {"run": run, "base": base or _base(run), "detail": found, "step_notes": notes}


def _pane(access: Access, run: Run, seq: int | None, whole: str) -> Any:
    step = rows(access, Step).select_related("payload").filter(run=run, seq=seq).first() if seq is not None else None
    return step and detail(run, step, whole=whole)


def first_choice(shown: Timeline, spans: Sequence[Span]) -> int | None:
    """The first problem; without one the answer, or what came last."""
    own = next((problem.seq for problem in shown.problems if not problem.run), None)
    if own is not None:
        return own
    answer = next((span.seq for span in spans if span.kind == "result"), None)
    return answer or (spans[-1].seq if spans else None)


# --- the window ------------------------------------------------------------------------------------------------------


def window(shown: Timeline, loaded: Loaded, chosen: int | None, find: str, first: int | None) -> Window:
    """The first rows, those round the chosen one, those from `first` on, or those that hold the words."""
    total = len(shown.rows)
    words = find.strip().lower()
    if words:
        _name_subjects(shown.rows, loaded)
        found = _matching(shown.rows, words)
        part = _window(shown, loaded, found[:MORE])
        part.not_shown = len(found) - len(part.rows)
        return part
    if first is None:
        at = next((n for n, row in enumerate(shown.rows) if row.seq == chosen and not row.run), 0)
        first = 0 if at < WINDOW else at - BEFORE
    return _window(shown, loaded, range(first, min(total, first + WINDOW)))


def _matching(all_rows: Sequence[Row], words: str) -> list[int]:
    """Rows that hold the words, and what they stand under."""
    at = {row.id: index for index, row in enumerate(all_rows)}
    found: set[int] = set()
    for index, row in enumerate(all_rows):
        if words in f"{row.title} {row.note} {row.problem}".lower():
            found.add(index)
            while row.parent:
                found.add(at[row.parent])
                row = all_rows[at[row.parent]]  # noqa: PLW2901  the walk upwards
    return sorted(found)


def _window(shown: Timeline, loaded: Loaded, places: Sequence[int]) -> Window:
    chosen = [place(shown.rows[index], shown.axis) for index in places]
    _name_subjects(chosen, loaded)
    _count_notes(chosen, loaded)
    contiguous = isinstance(places, range)
    first = places[0] if contiguous and places else 0
    end = first + len(chosen) if contiguous else len(shown.rows)
    return Window(rows=chosen, first=first, end=end, total=len(shown.rows))


def _name_subjects(shown: Iterable[Row], loaded: Loaded) -> None:
    """What each call is about, from the beginning of its input: for rows that are drawn, or looked through."""
    calls = {
        loaded.step_ids.get((row.run, row.seq)): row
        for row in shown
        if row.kind == "tool" and row.seq is not None and not row.note
    }
    ids = [step_id for step_id in calls if step_id]
    begun = StepPayload.objects.annotate(given=Substr(Cast("input", TextField()), 1, GIVEN))
    for at in range(0, len(ids), IDS_AT_ONCE):
        given = begun.filter(step_id__in=ids[at : at + IDS_AT_ONCE])
        for step_id, text in given.values_list("step_id", "given"):
            calls[step_id].note = subject(text)


def _count_notes(shown: Iterable[Row], loaded: Loaded) -> None:
    drawn = {loaded.step_ids.get((row.run, row.seq)): row for row in shown if row.seq is not None}
    for step_id, count in noted.counts(step_id for step_id in drawn if step_id).items():
        drawn[step_id].notes = count


# --- facts -----------------------------------------------------------------------------------------------------------


def totals(run: Run, shown: Timeline) -> dict[str, Any]:
    """Of the run's own steps; `nested` is what its sub-agents cost besides."""
    root = shown.rows[0].cost
    nested = (root or Decimal(0)) - run.cost_usd if any(row.below for row in shown.rows) else Decimal(0)
    return {
        "cost": None if run.unpriced_steps and not run.cost_usd else run.cost_usd,
        "nested": nested if nested > 0 else None,
        "unpriced": run.unpriced_steps,
        "tokens": run.input_tokens + run.output_tokens + run.cache_read_tokens + run.cache_write_tokens,
        "steps": run.last_seq,
    }


_PATH_WORDS = {"waiting": "waiting for people", "model": "model", "tool": "tools", "evaluate": "evaluation"}


def _critical(shown: Timeline, status: str) -> dict[str, Any] | None:
    """What the run's time went to, the longest first."""
    known = [(kind, ms) for kind, ms in shown.critical_ms.items() if ms * 100 >= shown.took_ms > 0]
    parts = sorted(known, key=lambda part: -part[1])[:2]
    if not parts:
        return None
    words = {**_PATH_WORDS, "waiting": "waiting for sub-agents"} if status == DELEGATING else _PATH_WORDS
    return {
        "parts": [{"label": words.get(kind, kind), "ms": ms, "share": ms / shown.took_ms} for kind, ms in parts],
        "person": parts[0][0] == "waiting",
    }


def run_facts(run: Run, prefix: str = "", status: str = "") -> RunFacts:
    return RunFacts(
        id=prefix,
        agent=agent_name(run),
        status=run.status,
        started_at=run.started_at or run.created_at,
        ended_at=run.ended_at,
        now=timezone.now(),
        waiting_since=run.waiting_since,
        plan_titles=tuple(str(step.get("title", "")) for step in (run.plan or {}).get("steps", [])),
        waits_for="sub-agents" if status == DELEGATING else "a person",
    )


def subject(given: str | None) -> str:
    """What a call is about, in a few characters: the first plain argument of the JSON it was given."""
    match = _SUBJECT.search(given or "")
    if not match:
        return ""
    return match[1] or f"#{match[2]}"


def _legend(shown: Timeline) -> list[dict[str, str]]:
    kinds = {"tool" if row.kind == "calls" else row.kind for row in shown.rows}
    return [{"label": label, "fill": fill} for label, fill in LEGEND if fill.removeprefix("fill-") in kinds]
