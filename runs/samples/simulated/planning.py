"""Plans and evaluations: structured answers about a task, and about what just happened to it."""

from __future__ import annotations

import re
from typing import Any

from runs.samples.simulated import choosing
from runs.samples.simulated.billing import blocks_of
from runs.samples.simulated.conversation import Use, json_values, read, settle, short
from runs.samples.simulated.judging import judge
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.work import ABOUT


def step(title: str, *assumptions: tuple[str, str], needs_person: bool = False) -> JsonObject:
    return {
        "title": title,
        "needs_person": needs_person,
        "assumptions": [{"text": text, "check": check} for text, check in assumptions],
    }


DESK = [
    step("Read the refund policy and the open requests", ("The policy says how old an order may be", "search_policy")),
    step(
        "Look up every order, customer and photo",
        ("Every request has evidence of the damage", "Photos in read_ticket, carrier note in get_order"),
    ),
    step("Leave what the policy does not cover for a person"),
    step(
        "Prepare refunds, record updates and emails",
        ("No order is older than the policy allows", "days_old in get_order"),
        ("Refunds go to the original card", "payment in get_order"),
        needs_person=True,
    ),
    step("Read the decisions and sum up"),
]
RESEARCH = [
    step("Search suppliers of the product", ("There is more than one supplier", "search_suppliers")),
    step("Read each of them with a second source"),
    step(
        "Compare price, minimum order and lead time, and recommend one",
        ("Every certificate is confirmed by a second source", "second_source in read_supplier"),
        needs_person=True,
    ),
]
CLEANUP = [
    step("List what was not used for long", ("Something is stale", "list_stale_records")),
    step(
        "Delete it, kind by kind",
        ("Nothing on the lists is still needed", "labels in list_stale_records"),
        needs_person=True,
    ),
    step("Sum up what was deleted and what was kept"),
]
PLANS = {choosing.DESK: DESK, choosing.RESEARCH: RESEARCH, choosing.CLEANUP: CLEANUP}
OTHER = [step("Say what the simulated model can and cannot do with this task")]
# What replaces the steps that stood on an assumption, by its text.
REVISIONS = {
    "No order is older than the policy allows": [
        step(
            "Prepare refunds, record updates and emails for the orders within the policy's days",
            ("Refunds go to the original card", "payment in get_order"),
            needs_person=True,
        ),
    ],
    "Every certificate is confirmed by a second source": [
        step("Compare only suppliers with a confirmed certificate, and recommend one", needs_person=True),
    ],
    "Nothing on the lists is still needed": [
        step("Delete it, kind by kind, but for what a label says is still needed", needs_person=True),
    ],
}
GOOD_ENOUGH = 0.5
FAILED = "These assumptions of the plan did not hold:"


def schema_of(body: JsonObject) -> JsonObject:
    wanted = (body.get("output_config") or {}).get("format") or {}
    schema = wanted.get("schema")
    return schema if isinstance(schema, dict) else {}


def respond(body: JsonObject) -> Reply | None:
    """The answer to a Plan or Evaluation request; None for any other."""
    schema = schema_of(body)
    names = set(schema.get("properties") or {})
    text = "\n".join(str(block.get("text", "")) for block in blocks_of(body["messages"][-1].get("content")))
    if text.startswith(FAILED):
        return Reply(data={"steps": revision(text)})
    if schema.get("title") == "Plan" or names == {"steps"}:
        task = text.rpartition("Task:\n")[2]
        # The plan is asked for without tool definitions: the tools stand in the prompt by name.
        kind = choosing.choose(read(body).agent, task, text.__contains__)
        return Reply(data={"steps": PLANS.get(kind, OTHER)})
    if schema.get("title") == "Evaluation" or {"score", "sentence"} <= names:
        return Reply(data=evaluate(text))
    return None


def revision(text: str) -> list[JsonObject]:
    """Steps that can stand on what was found; an assumption that no script knows is replaced by nothing."""
    failed = text.removeprefix(FAILED).partition("What was found:")[0]
    return [new for assumption, steps in REVISIONS.items() if assumption in failed for new in steps]


def evaluate(text: str) -> JsonObject:
    """Reads the plan and what happened out of the prompt. Results cut off in the middle count as far as they go."""
    before, _, after = text.rpartition("What just happened:")
    values = json_values(before)
    plans = [value for value in values if isinstance(value, dict) and isinstance(value.get("steps"), list)]
    plan: JsonObject = plans[-1] if plans else {"steps": []}
    happened = json_values(after)
    answers = [value["answer"] for value in happened if isinstance(value, dict) and "answer" in value]
    if answers:
        return judge_answer(str(answers[-1]), plan)
    flat = [item for value in happened for item in (value if isinstance(value, list) else [value])]
    uses = [_use(item) for item in flat if isinstance(item, dict) and item.get("tool")]
    return judge(uses, plan, before)


def judge_answer(answer: str, plan: JsonObject) -> JsonObject:
    score, sentence = _worth(answer)
    return {
        "score": score,
        "progress": score >= GOOD_ENOUGH,
        "sentence": sentence,
        "plan_steps_done": list(range(len(plan["steps"]))) if score >= GOOD_ENOUGH else [],
        "assumptions": [],
    }


def _worth(answer: str) -> tuple[float, str]:
    if not answer.strip():
        return 0.0, "There is no answer."
    if ABOUT in answer:
        return 0.2, "The simulated model has no script for this task and says so."
    points = [line for line in answer.splitlines() if line.startswith("- ")]
    bad = [line for line in points if re.search(r"failed|not possible|was not", line, re.IGNORECASE)]
    covers = f"The answer covers {len(points)} point{'' if len(points) == 1 else 's'}"
    if bad:
        return 0.7, f"{covers}, {len(bad)} of them not settled."
    left = " and names what is left to people" if re.search(r"rejected|left|kept|waits", answer, re.IGNORECASE) else ""
    return 0.95, f"{covers}{left}."


def _use(item: JsonObject) -> Use:
    given = item.get("input")
    use = Use("", short(str(item["tool"])), given if isinstance(given, dict) else {})
    output = item.get("output")
    failed = str(item.get("status") or "ok") in ("error", "timeout", "denied")
    settle(use, output if isinstance(output, str) else "", is_error=failed)
    if not isinstance(output, str):
        use.data = output
    return use


def fill(schema: JsonObject, text: str) -> Any:
    """The smallest value that fits a schema, with `text` wherever a text may stand."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return fill(schema[key][0], text)
    kind = schema.get("type")
    kind = next((name for name in kind if name != "null"), "null") if isinstance(kind, list) else kind
    match kind:
        case "string":
            return text
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "array":
            return [fill(schema.get("items") or {}, text) for _ in range(int(schema.get("minItems", 0)))]
        case "null":
            return None
    properties = schema.get("properties") or {}
    return {name: fill(properties.get(name) or {}, text) for name in schema.get("required") or properties}
