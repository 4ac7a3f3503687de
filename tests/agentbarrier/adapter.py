"""AgentBarrier's adapter over agentsite itself: launched, decided and cancelled over the HTTP API with a token,
executed by the engine against a real MCP server, remembered by the database.

Only the model (it asks for the calls that the suite wants) and the broker (a thread pool) are stand-ins.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from agentbarrier import (
    ActionRequest,
    AgentAdapter,
    AuditEvent,
    AuditReceipt,
    Capability,
    ReconciliationEvidence,
    ReconciliationStatus,
    RunHandle,
    RunOutcome,
    RunStatus,
)
from agentbarrier.adapter import validate_actions
from agentbarrier.models import action_digest
from agentbarrier.probe import EffectProbe
from django.db import connections

from accounts import tokens
from accounts.access import Access
from accounts.models import Receipt
from approvals import reconcile
from runs import leases, tasks
from runs.agents import save_server
from runs.engine.types import ActionStatus
from runs.models import Action
from runs.samples.simulated.reply import JsonObject, Reply, ToolCall
from runs.tools.mcp import ServerPool, discover
from runs.verdicts import digest_of
from tests import running
from tests.agentbarrier.sentinel import FREE, GATED, TOOL_NAME, Sentinel, request_of
from tests.api.client import Caller, answer

LOOK_EVERY_S = 0.02
CANCELS_WITHIN_S = 5.0
EVENTS = {
    "run.launched": AuditEvent.RUN_STARTED,
    "run.completed": AuditEvent.RUN_COMPLETED,
    "run.cancelled": AuditEvent.RUN_CANCELLED,
    "action.asked": AuditEvent.APPROVAL_REQUESTED,
    "decision.approve": AuditEvent.APPROVED,
    "decision.reject": AuditEvent.REJECTED,
    reconcile.ASKED: AuditEvent.RECONCILIATION_STARTED,
}
ANSWERS = {
    "happened": AuditEvent.RECONCILIATION_COMMITTED,
    "did_not_happen": AuditEvent.RECONCILIATION_NOT_COMMITTED,
    "unknown": AuditEvent.RECONCILIATION_CONFLICT,
    "timed_out": AuditEvent.RECONCILIATION_TIMED_OUT,
}
ENDS = {"completed": RunStatus.COMPLETED, "cancelled": RunStatus.CANCELLED}
T = TypeVar("T")


class Agentsite(AgentAdapter):
    """`folder` holds the model's port file. `close` ends the server, the model and the workers."""

    name = "agentsite"
    capabilities = frozenset(Capability)

    def __init__(self, folder: Path) -> None:
        self.access: Access = running.team_with_admin("barrier", "riva")
        self.caller = Caller(tokens.create_token(self.access.user, self.access.team, name="barrier")[1])
        self.sentinel = Sentinel()
        self.sentinel.start()
        self.workers = ThreadPoolExecutor(4, thread_name_prefix="worker")
        self._scripts: dict[str, tuple[ActionRequest, ...]] = {}
        self._stack = ExitStack()
        self._stack.enter_context(running.model(self._reply, folder))
        self._stack.enter_context(patch("runs.doorbell.current_app.send_task", self._ring))
        # As for tool servers on this machine: private addresses are refused elsewhere.
        pool = ServerPool(allow_private=True)
        self._stack.callback(pool.close)
        self._stack.enter_context(patch("runs.toolbox._pool", pool))
        found = discover(self.sentinel.config, "sentinel", allow_private=True)
        save_server(self.access.team, "sentinel", self.sentinel.config, found, by=None)

    def close(self) -> None:
        self.workers.shutdown()
        self._stack.close()
        self.sentinel.stop()

    async def begin(
        self,
        *,
        run_id: str,
        actions: Sequence[ActionRequest],
        effect: EffectProbe,
        timeout_seconds: float | None = None,
    ) -> RunHandle:
        wanted = validate_actions(actions)
        self.sentinel.expect(wanted, effect)
        digest = hashlib.sha256("".join(map(action_digest, wanted)).encode()).hexdigest()[:12]
        slug = f"agent-{digest}"
        self._scripts[slug] = wanted
        tools = [
            {"name": f"sentinel.{FREE}", "policy": "auto", "timeout_s": timeout_seconds},
            {"name": f"sentinel.{GATED}", "policy": "review", "timeout_s": timeout_seconds},
        ]
        helper = {"name": "Sentinel helper", "model": "claude-sonnet-5-5", "tools": tools}
        await self.there(lambda: answer(self.caller.put(f"/agents/helper-{slug}", helper), 201))
        agent = {**helper, "name": "Sentinel agent", "subagents": [f"helper-{slug}"]}
        await self.there(lambda: answer(self.caller.put(f"/agents/{slug}", agent), 201))
        return await _Handle.launch(self, run_id, slug)

    async def there(self, call: Callable[[], T]) -> T:
        """In a thread, as a web process would; its database connections end with the call."""

        def closed() -> T:
            try:
                return call()
            finally:
                connections.close_all()

        return await asyncio.to_thread(closed)

    def actions_of(self, slug: str) -> tuple[ActionRequest, ...]:
        return self._scripts[slug]

    def _ring(self, _name: str, args: list[str]) -> None:
        def work() -> None:
            try:
                tasks.advance_run(args[0])
            finally:
                connections.close_all()

        self.workers.submit(work)

    def _reply(self, body: JsonObject) -> Reply:
        """Asks for all actions in one turn, a delegated one by way of another agent; once more for one that a person or
        the tool says did not happen."""
        told = _results(body)
        slug, _, only = next(text for text in _texts(body) if text.startswith("agent-")).partition(" ")
        calls = []
        for action in self._scripts[slug]:
            said = told.get(action.action_id, [])
            handed_on = action.parent_action_id is not None and not only
            is_next = not said or (len(said) == 1 and "did not happen" in said[0])
            if is_next and only in ("", action.action_id):
                calls.append(_delegation(slug, action) if handed_on else _call(action, len(said)))
        return Reply(tools=tuple(calls)) if calls else Reply(text="Done.")


class _Handle(RunHandle):
    def __init__(self, product: Agentsite, run_id: str, slug: str, launched: JsonObject) -> None:
        self.product = product
        self.run_id = run_id
        self.slug = slug
        self.id = str(launched["id"])

    @classmethod
    async def launch(cls, product: Agentsite, run_id: str, slug: str) -> _Handle:
        """The same logical run is the same request under the same key, so a second one is answered with the first."""
        body = {"agent": slug, "task": slug, "mode": "interactive"}
        launched = await product.there(lambda: answer(product.caller.post("/runs", body, key=f"{run_id} {slug}"), 201))
        return cls(product, run_id, slug, launched)

    async def wait_for_pending(self, timeout_seconds: float) -> tuple[ActionRequest, ...]:
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            pending = [action for _, action in await self._open() if action["status"] == "pending"]
            if pending:
                return tuple(self._as_asked(request_of(action["args"])) for action in pending)
            await asyncio.sleep(LOOK_EVERY_S)
        raise TimeoutError

    async def approve(self, action_id: str, replacement: ActionRequest | None = None) -> None:
        changed = None
        if replacement is not None:
            changed = {"operation": replacement.action_id, "arguments": dict(replacement.arguments)}
        await self._decide(action_id, "approve", args=changed)

    async def reject(self, action_id: str, reason: str | None = None) -> None:
        await self._decide(action_id, "reject", note=reason or "")

    async def cancel(self) -> None:
        def cancel() -> None:
            response = self.product.caller.post(f"/runs/{self.id}/cancel")
            assert response.status_code in (200, 409), response.content
            leases.watch()  # what the worker's pulse does twice a second

        await self.product.there(cancel)
        await self.wait(CANCELS_WITHIN_S)

    async def wait(self, timeout_seconds: float) -> RunOutcome:
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            outcome = await self._outcome()
            if outcome is not None:
                return outcome
            await asyncio.sleep(LOOK_EVERY_S)
        return RunOutcome(RunStatus.FAILED, "the run did not end in time")

    async def reconcile(self, action_id: str, timeout_seconds: float) -> ReconciliationEvidence:
        """Asks the tool again, as workers do. What it can't settle, a person settles who looked at the evidence."""
        self.product.sentinel.is_out = False
        row = await self.product.there(lambda: self._row(action_id))
        said = await self.product.there(lambda: reconcile.ask_again(row.id, patience_s=timeout_seconds))
        assert said is not None
        if said.word == "timed_out":
            return ReconciliationEvidence(
                action_id=action_id,
                status=ReconciliationStatus.UNAVAILABLE,
                expected_action_digest=action_digest(request_of(row.args)),
                detail=said.detail,
            )
        evidence = self.product.sentinel.evidence[action_id]
        if said.word == "did_not_happen":
            await self._decide(action_id, "did_not_happen", note=evidence.detail or "")
        return evidence

    async def replay(self) -> RunHandle:
        """The client's request and the worker's message, both once more."""
        again = await self.launch(self.product, self.run_id, self.slug)
        assert again.id == self.id, "the same key made another run"
        await self.product.there(lambda: tasks.advance_run(self.id))
        return again

    async def audit_receipts(self) -> tuple[AuditReceipt, ...]:
        return await self.product.there(self._receipts)

    async def close(self) -> None:
        await self.cancel()

    # --- helpers -----------------------------------------------------------------------------------------------------

    async def _open(self) -> list[tuple[JsonObject, JsonObject]]:
        listed = await self.product.there(lambda: answer(self.product.caller.get("/approvals", status="pending")))
        return [(batch, action) for batch in listed["items"] if batch["run"] == self.id for action in batch["actions"]]

    async def _decide(self, action_id: str, verdict: str, **more: Any) -> None:
        batch, action = next(
            (batch, action) for batch, action in await self._open() if action["args"]["operation"] == action_id
        )
        line = {"action": action["id"], "digest": action["digest"], "verdict": verdict, **more}
        line = {name: value for name, value in line.items() if value is not None}
        body = {"version": batch["version"], "decisions": [line]}
        path = f"/approvals/{batch['id']}/decisions"
        said = await self.product.there(lambda: answer(self.product.caller.post(path, body)))
        assert [result["outcome"] for result in said["results"]] == ["applied"], said

    async def _outcome(self) -> RunOutcome | None:
        run = await self.product.there(lambda: answer(self.product.caller.get(f"/runs/{self.id}")))
        if run["stop_reason"] is not None:
            return RunOutcome(ENDS.get(run["status"], RunStatus.FAILED), run["stop_detail"])
        if run["status"] != "waiting":
            return None
        for batch, action in await self._open():
            if action["status"] == "unknown":
                timed_out = "did not answer in" in batch["why"]
                return RunOutcome(RunStatus.TIMED_OUT if timed_out else RunStatus.UNKNOWN, batch["why"])
        return None

    def _as_asked(self, asked: ActionRequest) -> ActionRequest:
        """The suite's own request where the product asks for exactly that, else what it really asks for."""
        known = {action_digest(action): action for action in self.product.actions_of(self.slug)}
        return known.get(action_digest(asked), asked)

    def _row(self, action_id: str) -> Action:
        rows = Action.objects.filter(run_id=uuid.UUID(self.id), status=ActionStatus.UNKNOWN)
        return next(row for row in rows if row.args["operation"] == action_id)

    def _receipts(self) -> tuple[AuditReceipt, ...]:
        rows = {str(row.id): row for row in Action.objects.filter(run_id=uuid.UUID(self.id))}
        written = Receipt.objects.filter(team=self.product.access.team).order_by("seq")
        mine = [r for r in written if self.id in (r.subject_id, r.payload.get("run"))]
        found = [self._receipt(receipt, rows.get(receipt.subject_id)) for receipt in mine]
        return tuple(receipt for receipt in found if receipt is not None)

    def _receipt(self, receipt: Receipt, row: Action | None) -> AuditReceipt | None:
        """Bound to the suite's digest only if the product's own digest in it is that of the row as it stands."""
        event = EVENTS.get(receipt.kind)
        if receipt.kind == reconcile.ANSWERED:
            event = ANSWERS[receipt.payload["answer"]]
        if event is None:
            return None
        bound = row is not None and receipt.payload["digest"] == row.digest == digest_of(row)
        return AuditReceipt(
            sequence=receipt.seq,
            run_id=self.run_id,
            event=event,
            timestamp_ns=int(receipt.at.timestamp() * 1_000_000) * 1000,
            action_id=row.args["operation"] if row is not None else None,
            action_digest=action_digest(request_of(row.args)) if row is not None and bound else None,
            detail=receipt.kind,
        )


def _call(action: ActionRequest, attempt: int) -> ToolCall:
    assert action.tool_name == TOOL_NAME
    asked = {
        "operation": action.action_id,
        "arguments": dict(action.arguments),
        "reasoning": f"the suite asks for it, attempt {attempt + 1}",
        "confidence": 0.95,
    }
    return ToolCall(name=f"sentinel__{GATED if action.requires_approval else FREE}", input=asked)


def _delegation(slug: str, action: ActionRequest) -> ToolCall:
    asked = {"agent": f"helper-{slug}", "task": f"{slug} {action.action_id}", "reasoning": "theirs", "confidence": 0.95}
    return ToolCall(name="delegate", input=asked)


def _texts(body: JsonObject) -> list[str]:
    blocks = [block for message in body["messages"] for block in message["content"] if isinstance(block, dict)]
    plain = [message["content"] for message in body["messages"] if isinstance(message["content"], str)]
    return [*plain, *(str(block["text"]) for block in blocks if block["type"] == "text")]


def _results(body: JsonObject) -> dict[str, list[str]]:
    """What each operation's calls were answered with, in order."""
    operations: dict[str, str] = {}
    told: dict[str, list[str]] = {}
    for message in body["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "tool_use":
                given = block["input"]
                operations[block["id"]] = str(given.get("operation") or given["task"].partition(" ")[2])
            elif block["type"] == "tool_result":
                told.setdefault(operations[block["tool_use_id"]], []).append(json.dumps(block["content"]))
    return told
