"""What one turn's results are worth: a score, a sentence of facts, and which plan steps and assumptions they settle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from runs.samples.simulated.cases import DAMAGE, DAYS, money
from runs.samples.simulated.conversation import Use
from runs.samples.simulated.reply import JsonObject
from runs.samples.simulated.research import is_confirmed
from runs.samples.simulated.work import first_line

SCORES = {"done": 0.95, "queued": 0.9, "simulated": 0.9, "rejected": 0.6, "error": 0.3}
READS = {
    "list_tickets": ("found", "request", "tickets"),
    "search_policy": ("read", "policy section", "sections"),
    "read_ticket": ("read", "ticket", ""),
    "get_order": ("looked up", "order", ""),
    "get_customer": ("looked up", "customer", ""),
    "search_suppliers": ("found", "supplier", "suppliers"),
    "read_supplier": ("checked", "supplier", ""),
    "list_stale_records": ("listed", "stale record", "records"),
}
INSTEAD = {
    "No order is older than the policy allows": "an order is older than the policy allows",
    "Every certificate is confirmed by a second source": "a certificate is not confirmed by the second source",
    "Nothing on the lists is still needed": "a label says that a record is still needed",
    "Every request has evidence of the damage": "a request has no evidence of the damage",
    "There is more than one supplier": "there is one supplier only",
}
# The plan step, by a word of its title, that a tool's good results finish. Earlier steps are finished with it.
FINISHES = {
    "list_tickets": "open requests",
    "get_order": "Look up",
    "issue_refund": "Leave what",
    "search_suppliers": "Search suppliers",
    "read_supplier": "second source",
    "list_stale_records": "List what",
    "delete_stale_records": "Delete it",
}


def judge(uses: Sequence[Use], plan: JsonObject, said: str) -> JsonObject:
    """`said` is the text with the task in it: where a person may have named the days of the policy."""
    good = [use for use in uses if use.state in ("done", "queued", "simulated")]
    scores = [SCORES.get(use.state, 0.5) for use in uses]
    marks = list(_assumptions(uses, plan, said))
    return {
        "score": round(sum(scores) / len(scores), 2) if scores else 0.5,
        "progress": bool(good),
        "sentence": _sentence(uses, _refuted(marks, plan)),
        "plan_steps_done": _steps_done(uses, plan),
        "assumptions": marks,
    }


def _refuted(marks: Sequence[JsonObject], plan: JsonObject) -> list[str]:
    """What was found instead, for each assumption of our own plans that broke."""
    broken = [mark for mark in marks if mark["status"] == "did_not_hold"]
    texts = [str(plan["steps"][mark["step"]]["assumptions"][mark["assumption"]]["text"]) for mark in broken]
    return list(dict.fromkeys(INSTEAD[text] for text in texts if text in INSTEAD))


def _sentence(uses: Sequence[Use], refuted: Sequence[str]) -> str:
    parts = [part for tool in dict.fromkeys(use.tool for use in uses) for part in _parts(tool, uses)]
    text = "; ".join([*parts, *refuted]) or "nothing was called"
    return f"{text[0].upper()}{text[1:]}."


def _parts(tool: str, uses: Sequence[Use]) -> Iterator[str]:
    mine = [use for use in uses if use.tool == tool]
    read = READS.get(tool)
    fine = [use for use in mine if use.happened]
    if read and fine:
        verb, noun, key = read
        number = (
            sum(len((use.data or {}).get(key) or []) if isinstance(use.data, dict) else 0 for use in fine)
            if key
            else len(fine)
        )
        yield f"{verb} {number} {noun}{'' if number == 1 else 's'}"
    for use in mine:
        if read is None or not use.happened:
            yield f"{_what(use)} {_ended(use)}"


def _what(use: Use) -> str:
    args = use.args
    match use.tool:
        case "issue_refund":
            return f"the refund of {money(args.get('amount'))} for order {args.get('order')}"
        case "update_customer":
            return f"the update of customer {args.get('customer')}"
        case "send_email":
            return f"the email to {args.get('to')}"
        case "delete_stale_records":
            return f"the deletion of {len(args.get('ids') or [])} {args.get('kind')}"
        case "write":
            return "the note"
    return use.tool


def _ended(use: Use) -> str:
    match use.state:
        case "done":
            return "was done"
        case "queued":
            return "waits for a person"
        case "simulated":
            return "was simulated, nothing changed"
        case "rejected":
            return f"was rejected{f' ({use.note})' if use.note else ''}"
        case "error":
            return f"failed: {first_line(use.text).rstrip('.')}"
    return f"was not done ({use.state})"


def _steps_done(uses: Sequence[Use], plan: JsonObject) -> list[int]:
    titles = [str(step.get("title") or "") for step in plan["steps"]]
    done = {index for index, step in enumerate(plan["steps"]) if step.get("status") == "done"}
    reached = -1
    for use in uses:
        word = FINISHES.get(use.tool)
        if (
            word
            and use.state in ("done", "queued", "simulated")
            and not (use.tool == "delete_stale_records" and use.open)
        ):
            reached = max(reached, _index(titles, word))
        if use.tool == "update_customer" and set(use.args.get("changes") or {}) == {"notes"} and use.state != "error":
            reached = max(reached, _index(titles, "Leave what"))
    decided = [use for use in uses if use.tool in ("issue_refund", "send_email") and not use.open]
    if len(decided) > 1 and len(decided) + 1 >= len([use for use in uses if use.open]):
        reached = max(reached, _index(titles, "Prepare refunds"))
    return sorted(done | set(range(reached + 1)))


def _index(titles: Sequence[str], word: str) -> int:
    """The last such step: one that was planned anew follows the one it replaces."""
    return max((index for index, title in enumerate(titles) if word in title), default=-1)


def _assumptions(uses: Sequence[Use], plan: JsonObject, said: str) -> Iterator[JsonObject]:
    for step_number, step in enumerate(plan["steps"]):
        for number, assumption in enumerate(step.get("assumptions") or []):
            held = _holds(str(assumption.get("text") or ""), uses, said)
            # A batch of results that knows nothing of an assumption says nothing of it; one that broke stays broken.
            if held is not None and assumption.get("status") != "did_not_hold":
                yield {"step": step_number, "assumption": number, "status": "held" if held else "did_not_hold"}


def _holds(text: str, uses: Sequence[Use], said: str) -> bool | None:
    """Whether these results confirm or refute an assumption of our own plans; None when they say nothing of it."""
    match text:
        case "The policy says how old an order may be":
            return _all(_data(uses, "search_policy"), lambda data: bool(DAYS.search(str(data))))
        case "Every request has evidence of the damage":
            return _all(_data(uses, "read_ticket"), lambda data: bool(DAMAGE.search(str(data.get("photos")))))
        case "No order is older than the policy allows":
            days = DAYS.search(said)
            limit = int(days.group(1)) if days else 60
            return _all(_data(uses, "get_order"), lambda data: int(data.get("days_old") or 0) <= limit)
        case "Refunds go to the original card":
            return _all(_data(uses, "issue_refund"), lambda data: bool(data.get("payment")))
        case "There is more than one supplier":
            return _all(_data(uses, "search_suppliers"), lambda data: len(data.get("suppliers") or []) > 1)
        case "Every certificate is confirmed by a second source":
            return _all(_data(uses, "read_supplier"), is_confirmed)
        case "Something is stale":
            lists = _data(uses, "list_stale_records")
            return any(data.get("records") for data in lists) if lists else None
        case "Nothing on the lists is still needed":
            lists = _data(uses, "list_stale_records")
            return (
                not any(re.search(r"audit|legal|bookkeep|tax", str(data), re.IGNORECASE) for data in lists)
                if lists
                else None
            )
    return None


def _data(uses: Sequence[Use], tool: str) -> list[JsonObject]:
    return [use.data for use in uses if use.tool == tool and use.happened and isinstance(use.data, dict)]


def _all(values: Sequence[JsonObject], check: Any) -> bool | None:
    return all(check(value) for value in values) if values else None
