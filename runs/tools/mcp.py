"""MCP servers as tools. Importing the SDK costs 0.7 s: only worker code, and whoever adds a server, imports this."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import anyio
import mcp_types
from anyio.abc import TaskGroup
from anyio.from_thread import BlockingPortal

from runs.engine.ports import PlanRefused, ToolConnectionLost, ToolTimeout, ToolUnavailable
from runs.engine.types import Effect, JsonObject, ToolPlan, ToolResult, ToolSpec
from runs.schemas import TOOL_NAME, FoundTool, ServerConfig
from runs.tools.base import ArgumentSchema, ServerError, risk_of, schema_fault, spec_of, tool_version
from runs.tools.mcp_session import Connection, NotSent, Session

logger = logging.getLogger(__name__)

KEY_META = "agentsite/idempotency-key"
PLAN_META, RECONCILE_META, UNDO_META = "agentsite/plan", "agentsite/reconcile", "agentsite/undo"
RISK_META = "agentsite/risk"
POLLING_META = "agentsite/polling"
OUTCOMES = ("happened", "did_not_happen", "unknown")
SUMMARY_CHARACTERS = 500
LOOK_EVERY_S = 0.2


def discover(config: ServerConfig, slug: str, timeout: float = 20.0, *, allow_private: bool = False) -> list[FoundTool]:
    """The tools that the server offers, in its order. Raises `ServerError`. Not for a thread with a running loop."""
    listed = anyio.run(_list_once, config, timeout, allow_private)
    found = describe(listed, slug)
    if not found:
        raise ServerError(f"the server {slug} offers no tool that can be used")
    return found


async def _list_once(config: ServerConfig, timeout_s: float, allow_private: bool) -> list[mcp_types.Tool]:
    connection, failure = Connection(config, allow_private=allow_private, keep_stderr=True), ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.run)
        try:
            await connection.opened(timeout_s)
        except NotSent as error:
            failure = str(error)
        connection.end()
    if failure:
        raise ServerError(failure)
    return list(connection.listed.values())


# --- describing tools -------------------------------------------------------------------------------------------------


def describe(listed: Sequence[mcp_types.Tool], slug: str) -> list[FoundTool]:
    """What to offer: twins are left out, and so is a tool that could not be called; the log says why."""
    tools = {tool.name: tool for tool in listed}
    hidden = {twin for tool in listed for twin in _twins(tool, tools).values()}
    found = []
    for tool in tools.values():
        if tool.name in hidden:
            continue
        fault = schema_fault(tool.input_schema)
        if not TOOL_NAME.match(f"{slug}.{tool.name}"):
            fault = "its name has characters that the model's API does not allow"
        if fault is not None:
            logger.warning("tool %r of server %s is left out: %s", tool.name, slug, fault)
            continue
        found.append(_found(tool, _twins(tool, tools)))
    return found


def _found(tool: mcp_types.Tool, twins: dict[str, str]) -> FoundTool:
    hints = tool.annotations or mcp_types.ToolAnnotations()
    hinted = _effect(hints)
    can_be_undone = hinted is Effect.IRREVERSIBLE and UNDO_META in twins  # the hint is about destroying, not about undo
    return FoundTool(
        name=tool.name,
        description=tool.description or "",
        input_schema=tool.input_schema,
        effect=Effect.WRITE.value if can_be_undone else hinted.value,
        idempotent=hints.idempotent_hint is True,
        risk=risk_of(hinted, (tool.meta or {}).get(RISK_META)),
        version=version_of(tool),
        plan=twins.get(PLAN_META),
        reconcile=twins.get(RECONCILE_META),
        undo=twins.get(UNDO_META),
        repeatable=(tool.meta or {}).get(POLLING_META) is True,
    )


def _effect(hints: mcp_types.ToolAnnotations) -> Effect:
    """Hints pre-fill what a person then confirms; what is not said is taken for the worst."""
    if hints.read_only_hint is True:
        return Effect.READ
    return Effect.WRITE if hints.destructive_hint is False else Effect.IRREVERSIBLE


def _twins(tool: mcp_types.Tool, tools: dict[str, mcp_types.Tool]) -> dict[str, str]:
    """The twins that can be believed, by meta key. Plan and reconcile are called without asking anyone: a tool that
    says of itself that it changes something, or that has twins of its own, is not one."""
    twins: dict[str, str] = {}
    for key in (PLAN_META, RECONCILE_META, UNDO_META):
        named = (tool.meta or {}).get(key)
        twin = tools.get(named) if isinstance(named, str) else None
        if twin is None or twin.name == tool.name or set(twin.meta or {}) & {PLAN_META, RECONCILE_META, UNDO_META}:
            continue
        hints = twin.annotations or mcp_types.ToolAnnotations()
        if key != UNDO_META and (hints.read_only_hint is False or hints.destructive_hint is True):
            continue
        twins[key] = twin.name
    return twins


def version_of(tool: mcp_types.Tool) -> str:
    return tool_version(tool.name, tool.description or "", tool.input_schema)


# --- calling tools ----------------------------------------------------------------------------------------------------


class ServerPool:
    """One session for each server in this process, on one loop in a thread of its own. Connects when first called.

    Used from any thread; closed once, at the end of the process.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        connect_timeout_s: float = 20.0,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`waiting` is entered by a thread for as long as it waits for a server."""
        self._waiting = waiting
        self._allow_private = allow_private
        self._connect_timeout_s = connect_timeout_s
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._host: _Host | None = None
        self._closed = False

    def tools(
        self, server_id: str, slug: str, config: ServerConfig, found: Sequence[FoundTool], *, timeout_s: float = 30.0
    ) -> dict[str, McpTool]:
        """By full name, `slug.tool`. A changed `config` of a `server_id` replaces its session once that is idle."""
        session = self._session(server_id, config)
        specs = [(tool, spec_of(tool, slug, timeout_s)) for tool in found]
        return {spec.name: McpTool(self, session, tool, spec) for tool, spec in specs}

    def call(
        self,
        session: Session,
        name: str,
        args: JsonObject,
        *,
        meta: JsonObject,
        timeout_s: float,
        version: str = "",
        given_up: Callable[[], bool] = lambda: False,
    ) -> mcp_types.CallToolResult:
        """Raises `ToolTimeout`, `ToolUnavailable` or `ToolConnectionLost`. With a `version`, calls no other."""

        def refuses(tool: mcp_types.Tool | None) -> str | None:
            if tool is None:
                return f"the server has no tool named {name} any more"
            if version and version_of(tool) != version:
                return f"{name} is not the tool that was added: its description or its arguments have changed"
            return None

        call = partial(session.call, name, args, meta=meta, timeout_s=timeout_s, refuses=refuses)
        with self._waiting():
            return _result_unless(given_up, self._running().portal.start_task_soon(call))

    def input_schema(self, session: Session, name: str) -> JsonObject:
        """As the server describes it now, twins too; empty when there is no such tool. Raises `ToolUnavailable`."""
        try:
            with self._waiting():
                connection = self._running().portal.start_task_soon(session.connected).result()
        except NotSent as error:
            raise ToolUnavailable(str(error)) from error
        tool = connection.listed.get(name)
        return tool.input_schema if tool is not None else {}

    def close(self) -> None:
        """Ends every session with its child process, and the loop."""
        with self._lock:
            self._closed = True
            host, self._host = self._host, None
            sessions = list(self._sessions.values())
        if host is not None:
            host.stop(sessions)

    def _session(self, server_id: str, config: ServerConfig) -> Session:
        with self._lock:
            current = self._sessions.get(server_id)
            if current is not None and current.config == config:
                return current
            self._sessions[server_id] = Session(
                config, self._spawn, allow_private=self._allow_private, connect_timeout_s=self._connect_timeout_s
            )
            if current is not None and self._host is not None:
                self._host.portal.start_task_soon(current.retire)
            return self._sessions[server_id]

    def _running(self) -> _Host:
        with self._lock:
            if self._closed:
                raise ToolUnavailable("this process is shutting down")
            if self._host is None:
                self._host = _Host()
            return self._host

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._running().tasks.start_soon(work)


def _result_unless(given_up: Callable[[], bool], call: Future[mcp_types.CallToolResult]) -> mcp_types.CallToolResult:
    """Waits for the call. One that is given up is cancelled, of which MCP tells the server: it may have acted."""
    while not wait([call], timeout=LOOK_EVERY_S).done:
        if given_up():
            call.cancel()
            raise ToolConnectionLost("the run was cancelled during the call")
    return call.result()


class _Host:
    """The loop's thread, and the task group in which connections are held open.

    Not `start_blocking_portal`: what is left of that at the end of a process without `close` waits for a dead loop.
    """

    def __init__(self) -> None:
        ready: Future[tuple[BlockingPortal, TaskGroup]] = Future()
        self._thread = threading.Thread(target=anyio.run, args=(_serve, ready), name="tool-servers", daemon=True)
        self._thread.start()
        self.portal, self.tasks = ready.result()

    def stop(self, sessions: Sequence[Session]) -> None:
        self.portal.call(_close_all, sessions)
        self.portal.call(self.portal.stop)
        self._thread.join()


async def _serve(ready: Future[tuple[BlockingPortal, TaskGroup]]) -> None:
    async with BlockingPortal() as portal, anyio.create_task_group() as tasks:
        ready.set_result((portal, tasks))
        await portal.sleep_until_stopped()
        tasks.cancel_scope.cancel()


async def _close_all(sessions: Sequence[Session]) -> None:
    async with anyio.create_task_group() as tasks:
        for session in sessions:
            tasks.start_soon(session.close)


class McpTool:
    def __init__(self, pool: ServerPool, session: Session, found: FoundTool, spec: ToolSpec) -> None:
        self._pool = pool
        self._session = session
        self._found = found
        self._spec = spec
        self._schema = ArgumentSchema(spec.input_schema)
        self._in_doubt: set[str] = set()
        self._given_up: Callable[[], bool] = lambda: False

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    def heed(self, given_up: Callable[[], bool]) -> None:
        """From now on a call in flight is broken off, and the server told so, once `given_up` says true."""
        self._given_up = given_up

    def validate(self, args: JsonObject) -> None:
        self._schema.check(args)

    def plan(self, args: JsonObject) -> ToolPlan | None:
        if self._found.plan is None:
            return None
        result = self._call(self._found.plan, args, timeout_s=self._spec.timeout_s)
        if result.is_error:
            raise PlanRefused(as_text(result)[:SUMMARY_CHARACTERS] or "the tool refuses this call")
        return plan_of(result)

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        # What was approved is bound to a version; reads are not, so a new description does not stop them.
        version = "" if self._spec.effect is Effect.READ else self._spec.version
        try:
            result = self._call(
                self._found.name,
                args,
                timeout_s=timeout_s,
                key=idempotency_key,
                version=version,
                given_up=self._given_up,
            )
        except (ToolTimeout, ToolConnectionLost) as error:
            # A child whose connection broke is dead; a server elsewhere, or one that is only slow, works on.
            if isinstance(error, ToolTimeout) or self._session.config.transport == "http":
                self._in_doubt.add(idempotency_key)
            raise
        return tool_result(result)

    def reconcile(self, idempotency_key: str) -> str:
        """Asks the twin. While the server may still be at work on a call of ours that got no answer, its "did not
        happen" proves nothing."""
        if self._found.reconcile is None:
            return "unknown"
        try:
            outcome = outcome_of(self._call_twin(self._found.reconcile, idempotency_key))
        except (ToolTimeout, ToolUnavailable, ToolConnectionLost) as error:
            logger.warning("%s could not be asked for the outcome of a call: %s", self._spec.name, error)
            return "unknown"
        if outcome == "did_not_happen" and idempotency_key in self._in_doubt:
            return "unknown"
        return outcome

    def undo(self, idempotency_key: str) -> ToolResult:
        """Undoes the call of that key. Raises what `execute` raises."""
        if self._found.undo is None:
            raise ToolUnavailable(f"{self._spec.name} cannot be undone")
        return tool_result(self._call_twin(self._found.undo, idempotency_key, own_key=f"undo:{idempotency_key}"))

    def _call_twin(self, twin: str, key: str, *, own_key: str = "") -> mcp_types.CallToolResult:
        schema = self._pool.input_schema(self._session, twin)
        return self._call(twin, {_key_argument(schema): key}, timeout_s=self._spec.timeout_s, key=own_key or key)

    def _call(
        self,
        name: str,
        args: JsonObject,
        *,
        timeout_s: float,
        key: str = "",
        version: str = "",
        given_up: Callable[[], bool] = lambda: False,
    ) -> mcp_types.CallToolResult:
        meta: JsonObject = {KEY_META: key} if key else {}
        return self._pool.call(
            self._session, name, args, meta=meta, timeout_s=timeout_s, version=version, given_up=given_up
        )


# --- reading results --------------------------------------------------------------------------------------------------


def tool_result(result: mcp_types.CallToolResult) -> ToolResult:
    content = result.structured_content
    return ToolResult(content=as_text(result) if content is None else content, is_error=bool(result.is_error))


def as_text(result: mcp_types.CallToolResult) -> str:
    return "\n".join(_block_text(block) for block in result.content)


def _block_text(block: mcp_types.ContentBlock) -> str:
    match block:
        case mcp_types.TextContent():
            return block.text
        case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents() as resource):
            return resource.text
        case mcp_types.ResourceLink():
            return f"[{block.name}: {block.uri}]"
        case mcp_types.ImageContent() | mcp_types.AudioContent():
            return f"[{block.type}, {block.mime_type}, not shown]"
        case _:
            return f"[{block.type}, not shown]"


def plan_of(result: mcp_types.CallToolResult) -> ToolPlan:
    """A preview without a type, or anything else of the wrong shape, is left out rather than guessed at."""
    value = _value(result)
    if not isinstance(value, dict):
        return ToolPlan(summary=as_text(result)[:SUMMARY_CHARACTERS])
    summary, preview, preconditions = value.get("summary"), value.get("preview"), value.get("preconditions")
    return ToolPlan(
        summary=summary[:SUMMARY_CHARACTERS] if isinstance(summary, str) else "",
        preview=preview if isinstance(preview, dict) and isinstance(preview.get("type"), str) else {},
        preconditions=preconditions if isinstance(preconditions, dict) else {},
    )


def outcome_of(result: mcp_types.CallToolResult) -> str:
    """The outcome as text, or as the one value of an object that is an outcome; whatever else is `unknown`."""
    value = _value(result)
    said = list(value.values()) if isinstance(value, dict) else [value]
    outcomes = {word.strip() for word in said if isinstance(word, str)} & set(OUTCOMES)
    return outcomes.pop() if len(outcomes) == 1 and not result.is_error else "unknown"


def _value(result: mcp_types.CallToolResult) -> Any:
    if result.structured_content is not None:
        return result.structured_content
    text = as_text(result)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _key_argument(schema: JsonObject) -> str:
    """The argument in which a twin takes the key: `idempotency_key`, or its only one whatever its name."""
    names = list(schema.get("properties") or ())
    return names[0] if len(names) == 1 else "idempotency_key"
