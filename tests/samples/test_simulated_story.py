"""The story that the sample agents, the sample shop and the simulated model tell together, with nothing in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import runs
from runs.samples.shop import tools
from runs.samples.shop.store import Store
from runs.samples.simulated import respond

Json = dict[str, Any]
SAMPLES = Path(runs.__file__).parent / "samples"
AGENTS: dict[str, Json] = {
    agent["slug"]: agent for agent in json.loads((SAMPLES / "agents.json").read_text(encoding="utf-8"))
}
TASKS: Json = json.loads((SAMPLES / "tasks.json").read_text(encoding="utf-8"))
QUEUED = "queued for approval: a person decides on this later; it is not done."
EXTRA = {"reasoning": {"type": "string"}, "confidence": {"type": "number"}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "shop.sqlite3")
    made.prepare()
    return made


class BatchRun:
    """Queues what the agent's own policies would make wait; the person rejects what `rejected` names by order."""

    def __init__(self, store: Store, slug: str, rejected: str = "", name: str = "first") -> None:
        self.store = store
        self.name = name
        self.agent = AGENTS[slug]
        self.rejected = rejected
        self.policies = {tool["name"].replace(".", "__"): tool for tool in self.agent["tools"]}
        self.messages: list[Json] = [{"role": "user", "content": TASKS[slug]}]
        self.alone: list[tuple[str, Json]] = []
        self.queued: dict[str, tuple[str, Json]] = {}
        self.asked: list[tuple[str, Json]] = []
        self.answers: list[str] = []

    def go(self) -> None:
        for turn in range(20):
            reply = respond(self.request())
            content: list[Json] = [{"type": "text", "text": reply.text}]
            uses = [(f"call_{turn}_{index}", call) for index, call in enumerate(reply.tools)]
            content += [{"type": "tool_use", "id": key, "name": call.name, "input": call.input} for key, call in uses]
            self.messages.append({"role": "assistant", "content": content})
            if uses:
                results = [self.result(key, call.name, dict(call.input)) for key, call in uses]
                self.messages.append({"role": "user", "content": results})
                continue
            self.answers.append(reply.text)
            if not self.queued:
                return
            self.settle()
        raise AssertionError("the run does not end")

    def request(self) -> Json:
        schema = {"type": "object", "properties": EXTRA}
        named = [{"name": name, "input_schema": schema} for name in self.policies]
        system = f"You are {self.agent['name']}.\n\n{self.agent['instructions']}"
        return {"model": "m", "max_tokens": 4000, "system": system, "tools": named, "messages": self.messages}

    def result(self, key: str, name: str, args: Json) -> Json:
        policy, confidence = self.policies[name], args.pop("confidence")
        assert args.pop("reasoning")
        waits = policy["policy"] == "review" or confidence < policy.get("threshold", 0)
        if waits:
            self.queued[key] = (name, args)
            return {"type": "tool_result", "tool_use_id": key, "content": QUEUED}
        if policy["policy"] == "confidence":
            assert not self.asked, "what may run alone comes before what has to wait"
            assert not self.queued
            self.alone.append((name, args))
        return {"type": "tool_result", "tool_use_id": key, "content": json.dumps(self.call(key, name, args))}

    def call(self, key: str, name: str, args: Json) -> Json:
        server, _, tool = name.partition("__")
        return tools.call(self.store, tool, args, f"{self.name}:{key}") if server == "shop" else {"noted": args}

    def settle(self) -> None:
        lines = ["Results of the queued actions"]
        for key, (name, args) in self.queued.items():
            refused = args.get("order") == self.rejected
            line: Json = {"tool_call_id": key, "tool": name, "by": "Dana Okafor"}
            if refused:
                line |= {"outcome": "rejected", "note": "the photo is too dark", "result": "rejected by a person"}
            else:
                line |= {"outcome": "succeeded", "note": "", "result": self.call(key, name, args)}
            lines.append(json.dumps(line))
        self.asked += self.queued.values()
        self.queued = {}
        self.messages.append({"role": "user", "content": "\n".join(lines)})


def test_refund_desk_wants_to_do_four_things(store: Store) -> None:
    run = BatchRun(store, "refund-desk", rejected="48231")
    run.go()
    note = {"notes": "left for a person: order older than 60 days"}
    assert run.alone == [("shop__update_customer", {"customer": "C-20871", "changes": note})]
    shown = [(name, {key: args[key] for key in args if key not in ("reason", "body")}) for name, args in run.asked]
    contact = {"damage_claims_12m": 1, "preferred_contact": "email"}
    assert shown == [
        ("shop__issue_refund", {"order": "48213", "amount": 84.0}),
        ("shop__update_customer", {"customer": "C-20917", "changes": contact}),
        ("shop__send_email", {"to": "ines.carvalho@example.com", "subject": "Your order 48213"}),
        ("shop__issue_refund", {"order": "48231", "amount": 58.0}),
    ]
    assert run.answers[0].startswith("4 actions wait for approval")
    assert "a refund of 58.00 USD was rejected by Dana Okafor, with the note “the photo is too dark”" in run.answers[1]
    assert "Tomas Lindqvist): left for a person" in run.answers[1]
    assert [entry["tool"] for entry in store.ledger()] == [
        "update_customer",
        "issue_refund",
        "update_customer",
        "send_email",
    ]


def test_a_second_run_refunds_only_what_is_left(store: Store) -> None:
    BatchRun(store, "refund-desk", rejected="48231").go()
    again = BatchRun(store, "refund-desk", name="second")
    again.go()
    refunds = [args["order"] for name, args in again.asked if name == "shop__issue_refund"]
    assert refunds == ["48231"]
    assert again.alone == []
    assert "84.00 USD was refunded before" in again.answers[-1]


def test_supplier_research_asks_the_soundest(store: Store) -> None:
    run = BatchRun(store, "supplier-research")
    run.go()
    ((name, args),) = run.asked
    assert (name, args["to"]) == ("shop__send_email", "quotes@fjellwerk.example")
    assert "200 pieces" in args["body"]
    assert "Alto Campo" in run.answers[-1]
    assert "The runner-up is Baltic Mast" in run.answers[-1]


def test_nightly_cleanup_asks_once_for_each_kind(store: Store) -> None:
    run = BatchRun(store, "nightly-cleanup")
    run.go()
    assert [(args["kind"], len(args["ids"])) for _, args in run.asked] == [("exports", 6), ("tickets", 4), ("carts", 3)]
    assert "Kept: E-1006 (Customer list for the auditor)" in run.answers[-1]
