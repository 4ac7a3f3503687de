"""The sample shop's own tools over its own file, called in this process: no server to start for each test."""

from __future__ import annotations

import sqlite3
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from runs.engine.ports import PlanRefused, Tool, ToolUnavailable
from runs.engine.types import JsonObject, ToolPlan, ToolResult, ToolSpec
from runs.first_run import shop_tools
from runs.models import Run
from runs.samples.shop.store import ShopError, Store
from runs.samples.shop.tools import call
from runs.schemas import AgentIn, FoundTool
from runs.tools.base import ArgumentSchema, spec_of


class LocalShop:
    """`before` is called with the tool's name ahead of each execution; `after` gives an exception to raise once it has
    happened (a connection that breaks on the way back); `executed` counts."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.store.prepare()
        self.before: Callable[[str], object] = lambda _: None
        self.after: dict[str, deque[Exception]] = defaultdict(deque)
        self.answers: dict[str, JsonObject] = {}  # instead of the shop's own
        self.executed: list[str] = []
        self.changes: dict[str, Any] = {}  # to every tool's spec
        self.outcome: str | None = None  # what reconcile says, whatever happened

    def tools_for(self, run: Run) -> dict[str, Tool]:
        """In place of `runs.toolbox.tools_for`."""
        found = {f"shop.{tool.name}": tool for tool in shop_tools()}
        wanted = [grant.name for grant in AgentIn.model_validate(run.agent_version.definition).tools]
        return {name: LocalTool(self, found[name]) for name in wanted if name in found}

    def effects(self) -> list[str]:
        return [entry["tool"] for entry in self.store.ledger()]

    def change(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.store.path)) as db, db:
            db.execute(statement, values)


class LocalTool:
    def __init__(self, shop: LocalShop, found: FoundTool) -> None:
        self._shop = shop
        self._found = found
        self._schema = ArgumentSchema(found.input_schema)
        self.spec: ToolSpec = replace(spec_of(found, "shop"), **shop.changes)

    def validate(self, args: JsonObject) -> None:
        self._schema.check(args)

    def plan(self, args: JsonObject) -> ToolPlan | None:
        if self._found.plan is None:
            return None
        try:
            return ToolPlan(**call(self._shop.store, self._found.plan, args))
        except ShopError as error:
            raise PlanRefused(str(error)) from error

    def execute(self, args: JsonObject, *, idempotency_key: str, timeout_s: float) -> ToolResult:
        self._shop.before(self._found.name)
        self._shop.executed.append(self._found.name)
        try:
            result = ToolResult(content=call(self._shop.store, self._found.name, args, idempotency_key or None))
        except ShopError as error:
            result = ToolResult(content=str(error), is_error=True)
        if self._found.name in self._shop.answers:
            result = ToolResult(content=self._shop.answers[self._found.name])
        if self._shop.after[self._found.name]:
            raise self._shop.after[self._found.name].popleft()
        return result

    def reconcile(self, idempotency_key: str) -> str:
        if self._shop.outcome is not None:
            return self._shop.outcome
        return str(call(self._shop.store, "reconcile_effect", {"idempotency_key": idempotency_key})["outcome"])

    def undo(self, idempotency_key: str) -> ToolResult:
        if self._found.undo is None:
            raise ToolUnavailable(f"{self.spec.name} cannot be undone")
        self._shop.before(self._found.undo)
        try:
            done = call(self._shop.store, self._found.undo, {"idempotency_key": idempotency_key})
        except ShopError as error:
            return ToolResult(content=str(error), is_error=True)
        return ToolResult(content=done)
