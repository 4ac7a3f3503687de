"""The simulated model at the sample agents' tasks: a small agent loop, through the real SDK, over a shop in a dict.

Names and amounts differ from the sample shop's on purpose: whatever the model says, it must have read.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import pytest

from runs.samples.simulated import FakeMessagesServer, respond

Json = dict[str, Any]

POLICY = {
    "sections": [
        {
            "section": "7.1",
            "title": "Damage",
            "text": "Damage must show on a photo or in the carrier's log for a refund.",
        },
        {"section": "7.2", "title": "Window", "text": "A refund is for orders up to 45 days old."},
    ]
}
TICKETS = {
    "T-1": ("C-1", "70001", "The mug is dented, please refund the mug, $20.50. Write to me by email.", ["a dent"]),
    "T-2": (
        "C-2",
        "70002",
        "The lamp is cracked. Please refund the $31.00. No email needed.",
        ["a crack in the glass"],
    ),
    "T-3": ("C-3", "70003", "The pole snapped, I would like $90.00 back.", ["a broken pole"]),
}
ORDERS = {"70001": (44.0, 3, "The parcel was dropped."), "70002": (31.0, 44, ""), "70003": (90.0, 46, "")}
NAMES = {"C-1": "Rosa Lund", "C-2": "Ben Okoye", "C-3": "Kim Aster"}
SUPPLIERS = [
    ("S-1", "Nordrohr", 7.5, 100, "The register lists it as valid."),
    ("S-2", "Billigrohr", 3.0, 10, "The register lists it for another company."),
    ("S-3", "Grossrohr", 5.0, 900, "The register lists it as valid."),
]
STALE = {
    "exports": [("E-1", "Old orders", 2000), ("E-2", "List for the auditor", 50)],
    "carts": [("B-1", "Cart, nobody", 3)],
    "tickets": [],
}
EFFECTS = ("issue_refund", "update_customer", "send_email", "delete_stale_records")
TASKS = {
    "Refund desk": "Work through the refund requests tagged damaged-in-transit. Leave orders older than 45 days.",
    "Supplier research": "Find suppliers of steel tubes, write a note, ask the best for a quote for 200.",
    "Nightly cleanup": "Delete exports unused for 90 days, tickets unused for 180 days and carts older than 60 days.",
}


class ToolFailed(Exception):
    pass


@dataclass
class Shop:
    """`broken` raises what it is told to, once for each entry."""

    done: list[tuple[str, Json]] = field(default_factory=list)
    broken: dict[str, list[str]] = field(default_factory=dict)
    refunded: dict[str, float] = field(default_factory=dict)

    def call(self, tool: str, args: Json) -> Json:
        if self.broken.get(tool):
            raise ToolFailed(self.broken[tool].pop(0))
        result: Json = getattr(self, tool)(**copy.deepcopy(args))
        if tool in EFFECTS:
            self.done.append((tool, args))
        return result

    def search_policy(self, query: str) -> Json:
        return POLICY

    def list_tickets(self, tag: str | None = None, status: str | None = None) -> Json:
        wanted = TICKETS if tag in (None, "damaged-in-transit") else {}
        rows = [{"ticket": key, "order": row[1], "customer": row[0], "status": "open"} for key, row in wanted.items()]
        return {"tickets": rows}

    def read_ticket(self, ticket: str) -> Json:
        customer, order, message, shows = TICKETS[ticket]
        photos = [{"name": "1.jpg", "shows": text} for text in shows]
        return {"ticket": ticket, "customer": customer, "order": order, "message": message, "photos": photos}

    def get_order(self, order: str) -> Json:
        total, days, carrier = ORDERS[order]
        money = {"total": total, "currency": "EUR", "refunded": self.refunded.get(order, 0.0)}
        payment = {"method": "Visa", "ending": "1111"}
        return {"order": order, "days_old": days, "carrier_note": carrier, "payment": payment, **money}

    def get_customer(self, customer: str) -> Json:
        name = NAMES[customer]
        email = f"{name.split()[0].lower()}@example.com"
        record = {"preferred_contact": "phone", "damage_claims_12m": 4, "notes": "Old note."}
        return {"customer": customer, "name": name, "email": email, **record}

    def issue_refund(self, order: str, amount: float, reason: str) -> Json:
        return {"refund": "R-1", "order": order, "amount": amount, "payment": {"method": "Visa"}}

    def update_customer(self, customer: str, changes: Json) -> Json:
        return {"customer": customer, "changed": changes}

    def send_email(self, to: str, subject: str, body: str) -> Json:
        return {"email": "M-1", "to": to}

    def search_suppliers(self, query: str) -> Json:
        names = ("supplier", "name", "unit_price", "minimum_order")
        return {"suppliers": [dict(zip(names, row, strict=False), product="Steel tube") for row in SUPPLIERS]}

    def read_supplier(self, supplier: str) -> Json:
        row = next(row for row in SUPPLIERS if row[0] == supplier)
        mail = f"sales@{row[1].lower()}.example"
        return {"supplier": supplier, "certificate": "ISO", "second_source": row[4], "contact_email": mail}

    def write(self, text: str) -> Json:
        return {"noted": text}

    def list_stale_records(self, kind: str, older_than_days: int) -> Json:
        return {"records": [{"id": row[0], "label": row[1], "size_kb": row[2]} for row in STALE[kind]]}

    def delete_stale_records(self, kind: str, ids: list[str]) -> Json:
        return {"kind": kind, "count": len(ids)}


Decide = Callable[[str, Json], str]
ALL_TOOLS = tuple(name for name in vars(Shop) if not name.startswith("_") and name not in ("call", "done", "broken"))


@dataclass
class Run:
    """One run of the loop. `decide` gives a person's note to reject a call, "" to approve it."""

    client: anthropic.Anthropic
    agent: str
    mode: str
    shop: Shop = field(default_factory=Shop)
    task: str = ""
    steer: dict[int, str] = field(default_factory=dict)
    decide: Decide = lambda tool, args: ""
    tools: tuple[str, ...] = ALL_TOOLS
    turns: list[list[tuple[str, Json]]] = field(default_factory=list)
    queued: list[tuple[str, str, Json]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    messages: list[Any] = field(default_factory=list)

    def go(self) -> str:
        self.messages = [{"role": "user", "content": [{"type": "text", "text": self.task or TASKS[self.agent]}]}]
        for turn in range(1, 16):
            if turn in self.steer:
                text = f"Message from Dana Okafor, who watches this run:\n{self.steer[turn]}"
                self.messages[-1]["content"].append({"type": "text", "text": text})
            message = self.ask()
            self.messages.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
            uses = [block for block in message.content if block.type == "tool_use"]
            self.turns.append([(use.name.partition("__")[2], dict(use.input)) for use in uses])
            self.texts.append("".join(block.text for block in message.content if block.type == "text"))
            if uses:
                self.messages.append({"role": "user", "content": [self.result(use) for use in uses]})
            elif self.queued:
                self.settle()
            else:
                return self.texts[-1]
        raise AssertionError("the run does not end")

    def ask(self, **more: Any) -> Any:
        properties = {"reasoning": {"type": "string"}, "confidence": {"type": "number"}}
        tools: list[Any] = [
            {"name": f"srv__{name}", "input_schema": {"type": "object", "properties": properties}}
            for name in self.tools
        ]
        system = f"You are {self.agent}.\n\nWork well."
        request: Json = {"model": "simulated", "max_tokens": 4000, "system": system, "messages": self.messages}
        with self.client.messages.stream(tools=tools, **request, **more) as events:
            return events.get_final_message()

    def result(self, use: Any) -> Json:
        tool, args = use.name.partition("__")[2], dict(use.input)
        confidence = args.pop("confidence")
        assert args.pop("reasoning")
        asks = tool in EFFECTS and (tool != "update_customer" or confidence < 0.9)
        text, is_error = self.outcome(use.id, tool, args, asks=asks)
        return {"type": "tool_result", "tool_use_id": use.id, "content": text, "is_error": is_error}

    def outcome(self, identifier: str, tool: str, args: Json, *, asks: bool) -> tuple[str, bool]:
        if self.mode == "dry_run" and tool in EFFECTS:
            return "simulated: this is a dry run, nothing was changed. What would happen: something", False
        if asks and self.mode == "batch":
            self.queued.append((identifier, tool, args))
            return "queued for approval: a person decides on this later; it is not done.", False
        if asks and (note := self.decide(tool, args)):
            return f"rejected by a person (Dana Okafor). Note: {note}", True
        try:
            return json.dumps(self.shop.call(tool, args)), False
        except ToolFailed as failed:
            return str(failed), True

    def settle(self) -> None:
        lines = []
        for identifier, tool, args in self.queued:
            note = self.decide(tool, args)
            outcome = "rejected" if note else "succeeded"
            result: Any = f"rejected by a person. Note: {note}" if note else self.shop.call(tool, args)
            line = {"tool_call_id": identifier, "tool": tool, "outcome": outcome, "note": note, "by": "Dana Okafor"}
            lines.append(json.dumps({**line, "result": result}))
        self.queued = []
        text = "Results of the queued actions\n" + "\n".join(lines)
        self.messages.append({"role": "user", "content": [{"type": "text", "text": text}]})

    @property
    def names(self) -> list[list[str]]:
        return [[name for name, _ in turn] for turn in self.turns]


@pytest.fixture
def client() -> Iterator[anthropic.Anthropic]:
    with (
        FakeMessagesServer(respond) as server,
        anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0, timeout=10) as made,
    ):
        yield made
        assert server.failures == []


def without_extras(args: Json) -> Json:
    return {key: value for key, value in args.items() if key not in ("reasoning", "confidence", "reason", "body")}


# --- the refund desk --------------------------------------------------------------------------------------------------


def test_desk_in_a_batch(client: anthropic.Anthropic) -> None:
    reject: Decide = lambda tool, args: "Photo is blurred" if args.get("order") == "70002" else ""  # noqa: E731
    run = Run(client, "Refund desk", "batch", decide=reject)
    answer = run.go()
    assert run.names[:4] == [
        ["search_policy", "list_tickets"],
        ["read_ticket"] * 3,
        ["get_order", "get_customer"] * 3,
        ["update_customer"],
    ]
    effects = [
        (name, without_extras(args), args["confidence"]) for turn in run.turns for name, args in turn if name in EFFECTS
    ]
    assert effects == [
        (
            "update_customer",
            {"customer": "C-3", "changes": {"notes": "Old note.\nleft for a person: order older than 45 days"}},
            0.97,
        ),
        ("issue_refund", {"order": "70001", "amount": 20.5}, 0.96),
        (
            "update_customer",
            {"customer": "C-1", "changes": {"damage_claims_12m": 5, "preferred_contact": "email"}},
            0.86,
        ),
        ("send_email", {"to": "rosa@example.com", "subject": "Your order 70001"}, 0.93),
        ("issue_refund", {"order": "70002", "amount": 31.0}, 0.95),
    ]
    assert run.texts[-2].startswith("4 actions wait for approval")
    assert [name for name, _ in run.shop.done] == ["update_customer", "issue_refund", "update_customer", "send_email"]
    assert "20.50 EUR refunded to the Visa ending 1111; customer record updated; email sent" in answer
    assert "31.00 EUR was rejected by Dana Okafor, with the note “Photo is blurred”" in answer
    assert "Kim Aster): left for a person: order older than 45 days. Noted on the customer's record." in answer


def test_desk_interactive_leaves_record_and_email_after_a_rejected_refund(client: anthropic.Anthropic) -> None:
    run = Run(
        client, "Refund desk", "interactive", decide=lambda tool, args: "no" if args.get("order") == "70001" else ""
    )
    answer = run.go()
    assert [(name, args.get("order")) for name, args in run.shop.done] == [
        ("update_customer", None),
        ("issue_refund", "70002"),
    ]
    assert "rejected by Dana Okafor, with the note “no”" in answer


def test_desk_in_a_dry_run_changes_nothing_and_says_so(client: anthropic.Anthropic) -> None:
    run = Run(client, "Refund desk", "dry_run")
    answer = run.go()
    assert run.shop.done == []
    assert answer.startswith("This was a dry run: nothing was changed.")
    assert len([name for turn in run.turns for name, _ in turn if name in EFFECTS]) == 5


def test_desk_hears_people(client: anthropic.Anthropic) -> None:
    run = Run(client, "Refund desk", "batch", steer={4: "Please skip order 70002.", 5: "also be kind"})
    answer = run.go()
    assert run.texts[3].startswith("Noted from Dana Okafor: “Please skip order 70002.”. I will leave 70002 alone.")
    assert run.texts[4].startswith("Noted from Dana Okafor: “also be kind”.")
    assert not run.texts[5].startswith("Noted")
    assert [args["order"] for name, args in run.shop.done if name == "issue_refund"] == ["70001"]
    assert "Order 70002 (Ben Okoye): left alone, as you asked." in answer


def test_desk_tries_a_failed_read_once_more_then_says_so(client: anthropic.Anthropic) -> None:
    run = Run(client, "Refund desk", "batch", shop=Shop(broken={"read_ticket": ["timed out"]}))
    run.go()
    assert run.names[1:3] == [["read_ticket"] * 3, ["read_ticket"]]
    assert len(run.shop.done) == 5
    run = Run(client, "Refund desk", "batch", shop=Shop(broken={"search_policy": ["down"] * 9}))
    answer = run.go()
    assert run.shop.done == []
    assert "search_policy(damaged refund window) failed: down" in answer
    assert "I could not read the refund policy, so I refunded nothing" in answer


def test_desk_looks_again_after_a_refused_refund(client: anthropic.Anthropic) -> None:
    run = Run(client, "Refund desk", "interactive", shop=Shop(broken={"issue_refund": ["more than is left"]}))

    def refuse_then_part(tool: str, args: Json) -> str:
        if tool == "issue_refund":
            run.shop.refunded["70001"] = 34.0  # somebody else paid in the meantime
        return ""

    run.decide = refuse_then_part
    answer = run.go()
    amounts = [(args["order"], args["amount"]) for name, args in run.shop.done if name == "issue_refund"]
    assert amounts == [("70001", 10.0), ("70002", 31.0)]
    assert "10.00 EUR refunded" in answer


def test_desk_without_its_tools_says_what_is_missing(client: anthropic.Anthropic) -> None:
    answer = Run(client, "Refund desk", "batch", tools=("list_tickets", "get_customer")).go()
    assert "simulated model" in answer
    assert "read_ticket, get_order and search_policy" in answer
    run = Run(client, "Refund desk", "batch", tools=tuple(name for name in ALL_TOOLS if name != "send_email"))
    run.go()
    assert [name for name, _ in run.shop.done] == ["update_customer", "issue_refund", "update_customer", "issue_refund"]


@pytest.mark.parametrize("task", ["Write a poem about the sea.", "What is seven times six?"])
def test_a_task_without_a_script_gets_an_honest_answer(client: anthropic.Anthropic, task: str) -> None:
    run = Run(client, "Refund desk", "batch", task=task)
    assert "my replies are scripted" in run.go()
    assert run.names == [[]]


def test_wrapping_up_says_what_is_done_and_what_is_not(client: anthropic.Anthropic) -> None:
    run = Run(client, "Refund desk", "interactive")
    run.go()
    last_refund = max(index for index, names in enumerate(run.names) if "issue_refund" in names)
    del run.messages[2 * last_refund + 1 :]  # as if the last refund had not been asked for yet
    text = "Wrap up now: no more tools can be used because the limit of 9 steps is reached."
    run.messages[-1]["content"].append({"type": "text", "text": text})
    message = run.ask(tool_choice={"type": "none"})
    assert message.stop_reason == "end_turn"
    said = message.content[0].text
    assert said.startswith("I was asked to wrap up.")
    assert "20.50 EUR refunded" in said
    assert "a refund of 31.00 EUR was not asked for" in said
    del run.messages[3:]  # as if nothing had been looked up
    run.messages[-1]["content"].append({"type": "text", "text": text})
    assert "No request was looked up yet" in run.ask(tool_choice={"type": "none"}).content[0].text


# --- the other two ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["interactive", "batch", "dry_run"])
def test_research_in_every_mode(client: anthropic.Anthropic, mode: str) -> None:
    run = Run(client, "Supplier research", mode)
    answer = run.go()
    assert run.names[:4] == [["search_suppliers"], ["read_supplier"] * 3, ["write"], ["send_email"]]
    mail = run.turns[3][0][1]
    assert (
        mail["to"] == "sales@nordrohr.example"
    )  # cheaper: one without a valid certificate, one with too large a minimum
    assert "quote for 200 pieces" in mail["body"]
    assert "I recommend Nordrohr" in answer
    assert "Billigrohr" in answer
    assert len(run.shop.done) == (0 if mode == "dry_run" else 1)


@pytest.mark.parametrize("mode", ["interactive", "batch", "dry_run"])
def test_cleanup_in_every_mode(client: anthropic.Anthropic, mode: str) -> None:
    run = Run(
        client, "Nightly cleanup", mode, decide=lambda tool, args: "keep carts" if args["kind"] == "carts" else ""
    )
    answer = run.go()
    assert [args["older_than_days"] for _, args in run.turns[0]] == [90, 180, 60]
    assert {args["kind"]: args["ids"] for _, args in run.turns[1]} == {"exports": ["E-1"], "carts": ["B-1"]}
    assert "Kept: E-2 (List for the auditor)" in answer
    if mode == "dry_run":
        assert run.shop.done == []
        assert "nothing was deleted" in answer
    else:
        assert [args["kind"] for _, args in run.shop.done] == ["exports"]
        assert "exports: 1 deleted, 2.0 MB freed." in answer
        assert "was rejected by Dana Okafor, with the note “keep carts”" in answer


# --- plans and evaluations --------------------------------------------------------------------------------------------


def structured(client: anthropic.Anthropic, title: str, text: str) -> Json:
    schema: Json = {"title": title, "type": "object", "properties": {}}
    return as_json(client, text, schema)


def as_json(client: anthropic.Anthropic, text: str, schema: Json) -> Json:
    message = client.messages.create(
        model="simulated",
        max_tokens=2000,
        messages=[{"role": "user", "content": text}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert message.content[0].type == "text"
    answer: Json = json.loads(message.content[0].text)
    return answer


@pytest.mark.parametrize(
    ("agent", "tools"),
    [
        ("Refund desk", "shop.read_ticket"),
        ("Supplier research", "shop.read_supplier"),
        ("Nightly cleanup", "shop.list_stale_records"),
    ],
)
def test_each_agent_has_a_plan(client: anthropic.Anthropic, agent: str, tools: str) -> None:
    plan = structured(client, "Plan", f"Plan this.\n\nTools: {tools}\n\nTask:\n{TASKS[agent]}")
    assert len(plan["steps"]) >= 3
    assert any(step["needs_person"] for step in plan["steps"])
    assert all(item["text"] and item["check"] for step in plan["steps"] for item in step["assumptions"])
    other = structured(client, "Plan", f"Plan this.\n\nTools: {tools}\n\nTask:\nWrite a poem.")
    assert len(other["steps"]) == 1


def judged(client: anthropic.Anthropic, plan: Json, happened: Any, cut: int = 100_000) -> Json:
    task = TASKS["Refund desk"]
    text = f"Judge.\n\nTask:\n{task}\n\nPlan:\n{json.dumps(plan)}\n\nWhat just happened:\n{json.dumps(happened)[:cut]}"
    return structured(client, "Evaluation", text)


def line(tool: str, output: Any, status: str = "ok", **args: Any) -> Json:
    return {"tool": f"shop.{tool}", "status": status, "input": args, "output": output}


def test_evaluations_follow_what_happened(client: anthropic.Anthropic) -> None:
    shop = Shop()
    plan = structured(client, "Plan", f"Tools: shop.read_ticket\n\nTask:\n{TASKS['Refund desk']}")
    first = judged(client, plan, [line("search_policy", POLICY), line("list_tickets", shop.list_tickets())])
    assert first["plan_steps_done"] == [0]
    assert first["sentence"] == "Read 2 policy sections; found 3 requests."
    assert first["assumptions"] == [{"step": 0, "assumption": 0, "status": "held"}]
    orders = judged(client, plan, [line("get_order", shop.get_order(number)) for number in ORDERS])
    assert orders["plan_steps_done"] == [0, 1]
    assert {"step": 3, "assumption": 0, "status": "did_not_hold"} in orders["assumptions"]
    queued = line("issue_refund", "queued for approval: later", order="70001", amount=20.5)
    assert judged(client, plan, [queued])["sentence"] == "The refund of 20.50 for order 70001 waits for a person."
    results = [
        line("issue_refund", {"payment": {}}, order="70001", amount=20.5),
        line("issue_refund", "rejected by a person (Dana). Note: blurred", "denied", order="70002", amount=31),
    ]
    decided = judged(client, plan, results)
    assert decided["plan_steps_done"] == [0, 1, 2, 3]
    assert decided["sentence"].endswith("the refund of 31.00 for order 70002 was rejected (blurred).")
    final = judged(client, plan, {"answer": "All done.\n- one\n- two, left for a person"})
    assert final["plan_steps_done"] == [0, 1, 2, 3, 4]
    assert final["sentence"] == "The answer covers 2 points and names what is left to people."


def test_a_failure_scores_low_and_makes_no_progress(client: anthropic.Anthropic) -> None:
    failed = judged(client, {"steps": []}, [line("get_order", "The tool is unavailable", "error")])
    assert failed["score"] < 0.5
    assert failed["progress"] is False
    assert failed["sentence"] == "Get_order failed: The tool is unavailable."


def test_an_evaluation_reads_what_is_left_of_cut_results(client: anthropic.Anthropic) -> None:
    lines = [line("get_order", Shop().get_order(number)) for number in ORDERS]
    cut = judged(client, {"steps": []}, lines, cut=len(json.dumps(lines)) - 30)
    assert cut["sentence"] == "Looked up 2 orders."


def test_any_other_schema_is_filled(client: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"summary": {"type": "string"}, "count": {"type": "integer"}, "tags": {"type": "array"}},
        "required": ["summary", "count", "tags"],
    }
    filled = as_json(client, "Write a poem.", schema)
    assert "scripted" in filled["summary"]
    assert (filled["count"], filled["tags"]) == (0, [])
