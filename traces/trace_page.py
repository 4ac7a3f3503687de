"""What the trace page shows, from rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django.db.models import Count, TextField
from django.db.models.functions import Cast, Substr
from django.utils import timezone

from accounts.access import Access, get, rows
from runs.models import Action, Run, Step
from traces.detail import can_cost, detail, find
from traces.export import all_tokens, total_cost
from traces.otel import agent_name
from traces.story import story
from traces.timeline import RunFacts, Span, Timeline, timeline

LEGEND = (
    ("Plan", "fill-plan"),
    ("Model", "fill-model"),
    ("Tool", "fill-tool"),
    ("Evaluation", "fill-evaluate"),
    ("Sub-agent", "fill-delegate"),
    ("Waiting", "fill-waiting"),
)


GIVEN = 200
_SUBJECT = re.compile(r':\s*(?:"([^"\\\\]{1,40})"|(-?[0-9][0-9.]{0,15}))(?=\s*[,}])')


def load(access: Access, run_id: Any) -> tuple[Run, list[Step]]:
    """The run and its steps, of their payloads only how the input begins (`given`)."""
    run = get(access, Run.objects.select_related("agent", "agent_version", "owner"), run_id)
    given = Substr(Cast("payload__input", TextField()), 1, GIVEN)
    return run, list(rows(access, Step).filter(run=run).annotate(given=given).order_by("seq"))


def page(access: Access, run_id: Any, *, seq: int | None, fold: bool, whole: str) -> dict[str, Any] | None:
    """The template's context; None when the run has no step of that number."""
    run, steps = load(access, run_id)
    shown = timeline(run_facts(run), spans(steps), fold=fold)
    chosen = seq if seq is not None else first_choice(shown, steps)
    pane = _pane(access, run, steps, chosen, whole)
    if seq is not None and pane is None:
        return None
    counts = dict(Action.objects.filter(run=run).values_list("status").annotate(count=Count("id")).order_by())
    return {
        "run": run,
        "agent_name": agent_name(run),
        "timeline": shown,
        "bands": [row for row in shown.rows if row.kind == "waiting"],
        "detail": pane,
        "chosen": chosen if pane else None,
        "fold": fold,
        "story": story(
            status=run.status,
            stop_reason=run.stop_reason,
            stop_detail=run.stop_detail,
            last_step=max((step.seq for step in steps), default=0),
            actions=counts,
        ),
        "totals": totals(steps),
        "legend": _legend(shown),
        "live": not run.is_ended,
    }


def pane(access: Access, run_id: Any, seq: int, *, whole: str) -> dict[str, Any] | None:
    run, steps = load(access, run_id)
    found = _pane(access, run, steps, seq, whole)
    return found and {"run": run, "detail": found}


def _pane(access: Access, run: Run, steps: Sequence[Step], seq: int | None, whole: str) -> Any:
    if seq is None or find(run, steps, seq) is None:
        return None
    step = get(access, Step.objects.select_related("payload"), run=run, seq=seq)
    return detail(run, step, steps, whole=whole)


def first_choice(shown: Timeline, steps: Sequence[Step]) -> int | None:
    """The first problem; without one the answer, or what came last."""
    if shown.problems:
        return shown.problems[0].seq
    answer = next((step.seq for step in steps if step.kind == "result"), None)
    return answer or (steps[-1].seq if steps else None)


def totals(steps: Sequence[Step]) -> dict[str, Any]:
    return {
        "cost": total_cost(steps),
        "unpriced": sum(step.cost_usd is None for step in steps),
        "tokens": sum(all_tokens(step) for step in steps),
        "steps": len(steps),
    }


def run_facts(run: Run) -> RunFacts:
    return RunFacts(
        agent=agent_name(run),
        status=run.status,
        started_at=run.started_at or run.created_at,
        ended_at=run.ended_at,
        now=timezone.now(),
        waiting_since=run.waiting_since,
        plan_titles=tuple(str(step.get("title", "")) for step in (run.plan or {}).get("steps", [])),
    )


def spans(steps: Sequence[Any]) -> list[Span]:
    return [
        Span(
            seq=step.seq,
            kind=step.kind,
            status=step.status,
            title=step.title,
            started_at=step.started_at,
            duration_ms=step.duration_ms,
            summary=step.summary,
            tool=step.tool,
            subject=subject(step.given) if step.kind == "tool" else "",
            cost=step.cost_usd if step.cost_usd is None else Decimal(step.cost_usd),
            costs=can_cost(step),
            score=step.score,
            plan_step=step.plan_step,
            attempt=step.attempt,
        )
        for step in steps
    ]


def subject(given: str | None) -> str:
    """What a call is about, in a few characters: the first plain argument of the JSON it was given."""
    match = _SUBJECT.search(given or "")
    if not match:
        return ""
    return match[1] or f"#{match[2]}"


def _legend(shown: Timeline) -> list[dict[str, str]]:
    kinds = {"tool" if row.kind == "calls" else row.kind for row in shown.rows}
    return [{"label": label, "fill": fill} for label, fill in LEGEND if fill.removeprefix("fill-") in kinds]
