"""Everything the pane beside the waterfall shows of one step."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from runs.engine import outputs
from runs.models import Action, Run, SearchDocument, Step
from traces import caching, charts
from traces.jsonview import Payload, payload
from traces.plan_actual import PlannedStep, planned_steps

_TOKEN_ROWS = (
    ("Cache read", ("cache_read_tokens",), "ramp-1"),
    ("Cache write", ("cache_write_5m_tokens", "cache_write_1h_tokens"), "ramp-2"),
    ("Input", ("input_tokens",), "ramp-3"),
    ("Output, incl. reasoning", ("output_tokens",), "ramp-4"),
)
PLANNED = 5_000  # steps that a plan is held against
KIND_WORDS = {
    "plan": "Plan",
    "model": "Model call",
    "tool": "Tool call",
    "evaluate": "Evaluation",
    "approval": "Approval",
    "guardrail": "Guardrail",
    "message": "Message",
    "delegate": "Sub-agent",
    "result": "Result",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    label: str
    tokens: int
    cost: Decimal | None
    ramp: str
    x: str
    width: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """`offset_ms` is the time since the run began. `price_gap` is what the parts' list prices leave unexplained.
    `given`: characters that the model was given of a tool's output, and of how many; None for all of it. `cut`: only
    the beginning of its texts is searched."""

    step: Step
    kind: str
    words: str
    offset_ms: int
    costs: bool
    evaluation: Step | None
    reasoning: str
    error: str
    prompt_tokens: int
    tokens: tuple[TokenRow, ...]
    price_gap: Decimal | None
    output: Payload | None
    given: tuple[int, int] | None
    input: Payload | None
    input_words: str
    action: Action | None
    retries: tuple[Step, ...]
    cut: bool
    whole: str
    plan: tuple[PlannedStep, ...]


def detail(run: Run, step: Step, *, whole: str = "") -> Detail:
    """`step` has its payload. `whole` names a payload that is shown uncut."""
    parts = caching.split(step.model, step.price_id, _counts(step), step.started_at.date()) if step.model else None
    prompt = step.input_tokens + step.cache_read_tokens + step.cache_write_tokens
    wait = step.kind == "approval" and step.title.startswith("Wait for ")
    return Detail(
        step=step,
        kind="waiting" if wait else step.kind,
        words="Wait" if wait else KIND_WORDS.get(step.kind, step.kind),
        offset_ms=max(0, round((step.started_at - (run.started_at or run.created_at)) / dt.timedelta(milliseconds=1))),
        costs=can_cost(step),
        evaluation=_evaluation(step),
        reasoning=step.payload.reasoning,
        error=step.payload.error,
        prompt_tokens=prompt,
        tokens=_tokens(step, parts),
        price_gap=_gap(step, parts),
        output=payload(_shown_output(step), whole=whole == "output"),
        given=outputs.given(step.payload.output) if step.kind == "tool" else None,
        input=payload(step.payload.input, whole=whole == "input"),
        input_words=_input_words(step, prompt),
        action=_action(run, step),
        retries=tuple(Step.objects.filter(run=run, key__startswith=f"{step.key}:failed:").order_by("seq")),
        cut=SearchDocument.objects.filter(step=step, cut=True).exists(),
        whole=whole,
        plan=planned_steps(run, Step.objects.filter(run=run)[:PLANNED]) if step.kind == "plan" else (),
    )


def can_cost(step: Step) -> bool:
    """Whether a cost of zero means nothing was spent, rather than that nothing can be."""
    return bool(step.model) or step.cost_usd is None or step.cost_usd != 0


def _counts(step: Step) -> dict[str, int]:
    return {kind: getattr(step, kind) for kind in caching.KINDS}


def _tokens(step: Step, parts: dict[str, Decimal] | None) -> tuple[TokenRow, ...]:
    counts = [sum(getattr(step, kind) for kind in kinds) for _, kinds, _ in _TOKEN_ROWS]
    if not any(counts):
        return ()
    slices = charts.parts(counts)
    return tuple(
        TokenRow(
            label=label,
            tokens=count,
            cost=None if parts is None else sum((parts.get(kind, Decimal(0)) for kind in kinds), Decimal(0)),
            ramp=ramp,
            x=place.x,
            width=place.width,
        )
        for (label, kinds, ramp), count, place in zip(_TOKEN_ROWS, counts, slices, strict=True)
    )


def _gap(step: Step, parts: dict[str, Decimal] | None) -> Decimal | None:
    if parts is None or step.cost_usd is None:
        return None
    gap = step.cost_usd - sum(parts.values(), Decimal(0))
    return gap if abs(gap) >= Decimal("0.000001") else None


def _turn(step: Step) -> str:
    """The turn a step belongs to, from its key: model:3, tool:3:0, evaluate:3."""
    match = re.match(r"(?:model|tool|evaluate|effect):(\w+)", step.key)
    return match[1] if match else ""


def _evaluation(step: Step) -> Step | None:
    """The judgement of this step: its own, or that of its turn."""
    if step.score is not None:
        return step
    turn = _turn(step)
    if not turn or step.kind not in ("model", "tool"):
        return None
    judged = Step.objects.filter(run_id=step.run_id, kind="evaluate", score__isnull=False)
    near = judged.filter(key__startswith=f"evaluate:{turn}").order_by("seq")
    return next((other for other in near if _turn(other) == turn), None)


def _shown_output(step: Step) -> Any:
    """A model's reply without its wrapping: text as text, calls as their names and arguments."""
    output = step.payload.output
    blocks = output.get("content") if isinstance(output, dict) and step.model else None
    if not isinstance(blocks, list):
        return output
    texts = [str(block.get("text", "")) for block in blocks if isinstance(block, dict) and block.get("type") == "text"]
    calls = [
        {"tool": str(block.get("name", "")).replace("__", ".", 1), "input": block.get("input")}
        for block in blocks
        if isinstance(block, dict) and block.get("type") == "tool_use"
    ]
    if calls:
        return calls[0] if len(calls) == 1 else calls
    return "\n\n".join(text for text in texts if text) or output


def _input_words(step: Step, prompt: int) -> str:
    given = step.payload.input
    messages = given.get("messages") if isinstance(given, dict) and step.model else None
    if isinstance(messages, int):
        return f"{messages} {'message' if messages == 1 else 'messages'}, {prompt:,} tokens"
    return ""


def _action(run: Run, step: Step) -> Action | None:
    """The proposal behind a tool call, in the form it has now."""
    if not step.tool_call_id:
        return None
    chain = Action.objects.filter(run=run, tool_call_id=step.tool_call_id).select_related("decided_by")
    return chain.order_by("-created_at", "-id").first()
