"""Runs as OpenTelemetry spans. Every name of the GenAI conventions that we use stands here, pinned to one version.

All of gen_ai.* is still in development and was renamed this year; a new version is a change of this file only.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from runs.models import Run, Step
from traces import whole
from traces.json_parts import Json, Layout, written
from traces.whole import Totals, end, prompt_tokens

SEMCONV_VERSION = "1.42.0"
SCHEMA_URL = f"https://opentelemetry.io/schemas/gen-ai/{SEMCONV_VERSION}"
PROVIDER = "anthropic"

OPERATION = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
AGENT_NAME = "gen_ai.agent.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
COST_AMOUNT = "gen_ai.usage.cost.amount"
COST_CURRENCY = "gen_ai.usage.cost.currency"
COST_SOURCE = "gen_ai.usage.cost.source"
LOGFIRE_COST = "operation.cost"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
EVALUATION_EVENT = "gen_ai.evaluation.result"
EVALUATION_NAME = "gen_ai.evaluation.name"
EVALUATION_SCORE = "gen_ai.evaluation.score.value"
EVALUATION_EXPLANATION = "gen_ai.evaluation.explanation"
ERROR_TYPE = "error.type"

RUN_ID = "agentsite.run.id"
RUN_STATUS = "agentsite.run.status"
RUN_STOP_REASON = "agentsite.run.stop_reason"
RUN_TASK_TYPE = "agentsite.run.task_type"
SIMULATED = "agentsite.simulated"
STEP_SEQ = "agentsite.step.seq"
STEP_KIND = "agentsite.step.kind"
PLAN_STEP = "agentsite.plan.step"
REASONING = "agentsite.step.reasoning"
CONFIDENCE = "agentsite.step.confidence"
APPROVAL_WAIT = "agentsite.approval.wait_ms"
PRICE_ID = "agentsite.price.id"

INVOKE_AGENT, PLAN, CHAT, EXECUTE_TOOL = "invoke_agent", "plan", "chat", "execute_tool"
INTERNAL, CLIENT = 1, 3
OK, ERROR = 1, 2


def otlp(run: Run, layout: Layout) -> Iterator[bytes]:
    """One trace in the JSON shape of OTLP. Needs agent and agent_version selected."""
    return written(document, spans(run), layout)


def spans(run: Run) -> Iterator[Json]:
    """That of the run first, whose sums are read before."""
    yield _run_span(run, Totals.of(run))
    for step in whole.steps(run):
        yield from _step_spans(run, step)


def document(some: list[Any]) -> Json:
    """A request of OTLP with these spans."""
    resource = _attributes({"service.name": "agentsite"})
    scope = {"name": "agentsite", "version": "1"}
    scoped = {"scope": scope, "spans": some, "schemaUrl": SCHEMA_URL}
    return {"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scoped], "schemaUrl": SCHEMA_URL}]}


def _run_span(run: Run, totals: Totals) -> Json:
    name = agent_name(run)
    begun = run.started_at or run.created_at
    ended = max(run.ended_at or begun, totals.last_end or begun)
    attributes = {
        OPERATION: INVOKE_AGENT,
        AGENT_NAME: name,
        INPUT_TOKENS: totals.prompt_tokens,
        OUTPUT_TOKENS: totals.output_tokens,
        RUN_ID: str(run.id),
        RUN_STATUS: run.status,
        RUN_STOP_REASON: run.stop_reason,
        RUN_TASK_TYPE: run.task_type or None,
        SIMULATED: run.simulated,
        ERROR_TYPE: run.stop_reason if run.status == "failed" else None,
    }
    status = {"code": ERROR, "message": run.stop_detail} if run.status == "failed" else {}
    return _span(run, _root_id(run), "", f"{INVOKE_AGENT} {name}", INTERNAL, begun, ended, attributes, status)


def _step_spans(run: Run, step: Step) -> list[Json]:
    if step.kind == "plan":
        own = _of_step(run, step, f"{PLAN} {agent_name(run)}", INTERNAL, {OPERATION: PLAN, AGENT_NAME: agent_name(run)})
        call = _of_step(run, step, f"{CHAT} {step.model}", CLIENT, _model_attributes(step))
        return [own, {**call, "spanId": _hashed(own["spanId"]), "parentSpanId": own["spanId"]}]
    if step.kind in ("model", "evaluate"):
        span = _of_step(run, step, f"{CHAT} {step.model}", CLIENT, _model_attributes(step))
        return [{**span, "events": _evaluation(step)} if step.score is not None else span]
    if step.kind == "tool":
        return [_of_step(run, step, f"{EXECUTE_TOOL} {step.tool}", INTERNAL, _tool_attributes(step))]
    wait = step.duration_ms if step.kind == "approval" and step.duration_ms else None
    return [_of_step(run, step, f"agentsite.{step.kind} {step.title}"[:200], INTERNAL, {APPROVAL_WAIT: wait})]


def _of_step(run: Run, step: Step, name: str, kind: int, attributes: Json) -> Json:
    failed = step.status in ("error", "timeout", "denied")
    common = {
        STEP_SEQ: step.seq,
        STEP_KIND: step.kind,
        PLAN_STEP: step.plan_step,
        REASONING: step.payload.reasoning or None,
        CONFIDENCE: step.confidence,
        ERROR_TYPE: step.status if failed else None,
    }
    status = {"code": ERROR, "message": step.payload.error or step.summary} if failed else {"code": OK}
    return _span(
        run, _span_id(step), _root_id(run), name, kind, step.started_at, end(step), {**attributes, **common}, status
    )


def _model_attributes(step: Step) -> Json:
    output = step.payload.output if isinstance(step.payload.output, dict) else {}
    stop = output.get("stop_reason")
    cost = None if step.cost_usd is None else float(step.cost_usd)
    return {
        OPERATION: CHAT,
        PROVIDER_NAME: PROVIDER,
        REQUEST_MODEL: step.model,
        RESPONSE_MODEL: step.model,
        RESPONSE_ID: output.get("request_id") or None,
        FINISH_REASONS: [str(stop)] if stop else None,
        # The convention's input includes the cache; the column, like the provider's own number, leaves it out.
        INPUT_TOKENS: prompt_tokens(step),
        OUTPUT_TOKENS: step.output_tokens,
        CACHE_READ_TOKENS: step.cache_read_tokens,
        CACHE_WRITE_TOKENS: step.cache_write_tokens,
        COST_AMOUNT: cost,
        COST_CURRENCY: None if cost is None else "USD",
        COST_SOURCE: None if cost is None else "local",
        LOGFIRE_COST: cost,
        PRICE_ID: step.price_id or None,
    }


def _tool_attributes(step: Step) -> Json:
    return {
        OPERATION: EXECUTE_TOOL,
        TOOL_NAME: step.tool,
        TOOL_TYPE: "function",
        TOOL_CALL_ID: step.tool_call_id or None,
        TOOL_ARGUMENTS: _text(step.payload.input),
        TOOL_RESULT: _text(step.payload.output),
    }


def _evaluation(step: Step) -> list[Json]:
    attributes = {
        EVALUATION_NAME: step.title,
        EVALUATION_SCORE: step.score,
        EVALUATION_EXPLANATION: step.summary or None,
    }
    return [{"name": EVALUATION_EVENT, "timeUnixNano": _nanos(end(step)), "attributes": _attributes(attributes)}]


def _span(
    run: Run,
    span_id: str,
    parent: str,
    name: str,
    kind: int,
    start: dt.datetime,
    end: dt.datetime,
    attributes: Json,
    status: Json,
) -> Json:
    return {
        "traceId": run.id.hex,
        "spanId": span_id,
        "parentSpanId": parent,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": _nanos(start),
        "endTimeUnixNano": _nanos(max(start, end)),
        "attributes": _attributes(attributes),
        "status": status,
    }


def agent_name(run: Run) -> str:
    """The name the agent had when the run was launched."""
    return str(run.agent_version.definition.get("name") or run.agent.slug)


def _attributes(values: Json) -> list[Json]:
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value is not None]


def _value(value: Any) -> Json:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": str(value)}


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _nanos(moment: dt.datetime) -> str:
    return str((moment - _EPOCH) // dt.timedelta(microseconds=1) * 1_000)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _span_id(step: Step) -> str:
    """The random end of the step's id: its beginning is a time, which neighbours share."""
    return step.id.hex[16:]


def _root_id(run: Run) -> str:
    return run.id.hex[16:]


def _hashed(span_id: str) -> str:
    return hashlib.sha256(span_id.encode()).hexdigest()[:16]
