"""The refund desk: read the requests, leave what policy does not cover, refund the rest, tell the customers."""

from __future__ import annotations

import re
from decimal import Decimal

from runs.samples.simulated.cases import Case, Policy, money
from runs.samples.simulated.conversation import Conversation, Use
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.work import Work, describe, first_line, listed, not_equipped, skipped_orders

READS = ("read_ticket", "get_order", "get_customer", "search_policy")
TASK = re.compile(r"refund|damag|ticket|request|\border\b|customer", re.IGNORECASE)
ORDER = re.compile(r"(?<![\w-])\d{5,}\b")
CLOSED = ("solved", "closed", "done", "resolved")
LEFT = "left for a person: "


def respond(conversation: Conversation) -> Reply:
    missing = [tool for tool in READS if tool not in conversation.tools]
    return not_equipped(conversation, missing) if missing else Desk(conversation).next()


class Desk:
    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.work = Work(conversation)
        self.skipped = {number for note in self._asked() for number in skipped_orders(note)}
        self.policy: Policy | None = None
        self.listed: list[str] = []
        self.tickets: list[JsonObject] = []
        self.cases: list[Case] = []

    def _asked(self) -> list[str]:
        return [self.conversation.task, *(note.text for note in self.conversation.notes)]

    def next(self) -> Reply:
        said = self._stage()
        if said is None or self.conversation.wrap_up or not self.conversation.may_use_tools:
            return self._end()
        return self.work.turn(said)

    def _stage(self) -> str | None:
        """What to say beside the calls that are wanted now; None when there is nothing left to call."""
        for stage in (self._open, self._tickets, self._look_up, self._leave, self._pay):
            said = stage()
            if self.work.wanted:
                return said
        return None

    # --- reading -----------------------------------------------------------------------------------------------------

    def _open(self) -> str:
        found = self.work.read(
            "search_policy", "The policy decides what may be refunded.", query="damaged refund window"
        )
        self.policy = Policy.read(found.get("sections") or []) if found else None
        self.listed = self._list()
        return "I start with the refund policy and the requests that are waiting."

    def _list(self) -> list[str]:
        """The tickets to work on: named ones, else those with the tag of the task that are still open."""
        named = _unique(re.findall(r"\bT-\d+\b", self.conversation.said))
        if named and not _tag(self.conversation.task):
            return named
        filters = {"status": "open"} | ({"tag": _tag(self.conversation.task)} if _tag(self.conversation.task) else {})
        found = self.work.read("list_tickets", "These are the requests of the task.", **filters)
        rows = [
            row for row in (found or {}).get("tickets") or [] if row.get("status") not in CLOSED and row.get("order")
        ]
        orders = set(ORDER.findall(self.conversation.task)) - self.skipped
        if orders and not _tag(self.conversation.task):
            rows = [row for row in rows if str(row["order"]) in orders]
        return _unique([*(str(row["ticket"]) for row in rows), *named])

    def _tickets(self) -> str:
        for number in self.listed:
            ticket = self.work.read(
                "read_ticket", "What the customer wrote and what the photos show decides.", ticket=number
            )
            if ticket:
                self.tickets.append(ticket)
        return (
            f"{_count(len(self.listed), 'request')} to work through. I read what each customer wrote and their photos."
        )

    def _look_up(self) -> str:
        for ticket in self.tickets:
            order = self.work.read(
                "get_order",
                "Age, total, earlier refunds and the carrier's note of the order.",
                order=str(ticket["order"]),
            )
            customer = self.work.read(
                "get_customer", "Who asks, and how they want to be reached.", customer=str(ticket["customer"])
            )
            if order and customer:
                self.cases.append(Case(ticket, order, customer))
        return f"Now the {_plural(len(self.tickets), 'order')} and customer records behind them."

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _leave(self) -> str:
        """What policy does not cover is noted before anything is refunded: that note may run alone."""
        said = []
        for case in self.cases:
            reason = self._refusal(case)
            if not reason or self._is_skipped(case) or case.refunded_already:
                continue
            said.append(f"Order {case.number} of {case.name} is {case.order.get('days_old')} days old: {reason}.")
            if self._has_note(case, reason) or not self.work.has("update_customer"):
                continue
            why = f"Policy {self._section(reason)} leaves this request for a person; the record should say so."
            self.work.effect(
                "update_customer",
                {"customer": case.customer["customer"]},
                {"customer": case.customer["customer"], "changes": {"notes": _with_note(case, LEFT + reason)}},
                why,
                0.97,
            )
        return f"{' '.join(said)} The policy leaves that for a person, so I only note it on the customer's record."

    def _pay(self) -> str:
        for case in self._payable():
            refund = self._refund(case)
            if self.work.wanted:
                return self._paying(case)
            if refund is not None and refund.state in ("done", "queued", "simulated"):
                self._tell(case, money(refund.args.get("amount")))
                if self.work.wanted:
                    return f"Next the record of {case.name}, and an email that says what happens with the refund."
        return ""

    def _paying(self, case: Case) -> str:
        lead = f"Order {case.number} ({case.name}): "
        if self._refunds(case):
            return f"{lead}the refund was refused, so I check what the order allows."
        asked = case.amount(min(case.asked, case.left))
        days = self.policy.days if self.policy else 0
        return (
            f"{lead}{case.evidence}. It is {case.order.get('days_old')} days old, inside the {days} days. "
            f"I ask for {asked} to go back to the {case.card}."
        )

    def _payable(self) -> list[Case]:
        if self.policy is None:
            return []
        return [
            case
            for case in self.cases
            if not self._refusal(case)
            and not self._is_skipped(case)
            and (not case.refunded_already or self._refunds(case))
        ]

    def _is_skipped(self, case: Case) -> bool:
        return case.number in self.skipped or str(case.ticket.get("ticket")) in self.skipped

    def _refund(self, case: Case) -> Use | None:
        key = {"order": case.number}
        earlier = self.work.find("issue_refund", key)
        asked = min(case.asked, case.left)
        if earlier is None:
            return self.work.effect("issue_refund", key, self._refund_args(case, asked), self._why(case), _sure(case))
        if earlier.state == "error" and not earlier.was_queued and len(self._refunds(case)) == 1:
            return self._refund_again(case, earlier)
        return earlier

    def _refund_again(self, case: Case, failed: Use) -> Use | None:
        """The order is read once more after a refused refund: a smaller rest may still be paid."""
        uses = self.conversation.uses
        fresh = [
            use for use in uses[uses.index(failed) :] if use.tool == "get_order" and use.args == {"order": case.number}
        ]
        if not fresh:
            why = f"The refund was refused ({first_line(failed.text)}), so I look at the order again."
            self.work.again("get_order", {"order": case.number}, why, 0.95)
            return None
        now = Case(case.ticket, fresh[-1].data, case.customer) if isinstance(fresh[-1].data, dict) else case
        if 0 < now.left < money(failed.args.get("amount")):
            why = f"Only {now.amount(now.left)} is left to refund on order {case.number}."
            self.work.again("issue_refund", self._refund_args(now, now.left), why, 0.7)
            return None
        return failed

    def _refunds(self, case: Case) -> list[Use]:
        return [use for use in self.conversation.of("issue_refund") if use.args.get("order") == case.number]

    def _tell(self, case: Case, amount: Decimal) -> None:
        """Record and email, for a customer who did not ask to be spared them."""
        if case.wants_no_email:
            return
        customer = str(case.customer["customer"])
        changes: JsonObject = {"damage_claims_12m": int(case.customer.get("damage_claims_12m") or 0) + 1}
        if case.wants_email and case.customer.get("preferred_contact") != "email":
            changes["preferred_contact"] = "email"
        contact = " They ask to be written to by email." if "preferred_contact" in changes else ""
        self.work.effect(
            "update_customer",
            {"customer": customer},
            {"customer": customer, "changes": changes},
            f"One more damage claim for the record.{contact}",
            0.86,
        )
        email = case.customer.get("email")
        if email:
            self.work.effect(
                "send_email",
                {"to": email},
                {"to": email, "subject": f"Your order {case.number}", "body": _email(case, amount)},
                "The customer should hear what was decided. Plain words, no dates, as the policy asks.",
                0.93,
            )

    def _refund_args(self, case: Case, amount: Decimal) -> JsonObject:
        section = self.policy.evidence_section if self.policy else ""
        return {
            "order": case.number,
            "amount": float(amount),
            "reason": f"Damaged in transit, policy {section}: {case.evidence}.",
        }

    def _why(self, case: Case) -> str:
        asked = case.amount(min(case.asked, case.left))
        window = f" The order is {case.order.get('days_old')} days old." if self.policy else ""
        return f"{case.name} asks for {asked}; {case.evidence}.{window} It goes to the card it was paid with."

    def _refusal(self, case: Case) -> str:
        return case.refusal(self.policy) if self.policy else ""

    def _section(self, reason: str) -> str:
        if self.policy is None:
            return ""
        return self.policy.section if "days" in reason else self.policy.evidence_section

    def _has_note(self, case: Case, reason: str) -> bool:
        """Somebody wrote it there before this run did."""
        noted = LEFT + reason in str(case.customer.get("notes") or "")
        return noted and self.work.find("update_customer", {"customer": case.customer["customer"]}) is None

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> Reply:
        self.work.wanted.clear()
        waiting = [use for use in self.conversation.uses if use.open]
        lines = [f"- {self._line(case)}" for case in self.cases] + self._other_skips()
        lines += [f"- Not possible: {problem}." for problem in self.work.problems]
        if self.policy is None:
            lines.append("- I could not read the refund policy, so I refunded nothing: that needs a person.")
        if not lines and self.conversation.wrap_up:
            lines = ["- No request was looked up yet, so nothing was decided and nothing was changed."]
        elif not lines:
            lines = ["- I found no open request that fits the task."]
        return self.work.turn("\n".join([self._heading(waiting), "", *lines]))

    def _heading(self, waiting: list[Use]) -> str:
        if self.conversation.wrap_up:
            return "I was asked to wrap up. This is how far it went:"
        if waiting:
            things = "1 action waits" if len(waiting) == 1 else f"{len(waiting)} actions wait"
            return f"{things} for approval; everything else is done. Where it stands:"
        if any(use.state == "simulated" for use in self.conversation.uses):
            return "This was a dry run: nothing was changed. What a real run would do:"
        return (
            f"All {_count(len(self.cases), 'request')} are worked through." if len(self.cases) > 1 else "This is done."
        )

    def _line(self, case: Case) -> str:
        lead = f"Order {case.number} ({case.name}): "
        refund = self.work.find("issue_refund", {"order": case.number})
        if self._is_skipped(case):
            late = (
                " It was asked for before your message, so please decide on it in the batch."
                if refund and refund.open
                else ""
            )
            return f"{lead}left alone, as you asked.{late}"
        if case.refunded_already and refund is None:
            return (
                f"{lead}{case.amount(money(case.order.get('refunded')))} was refunded before, so nothing more is due."
            )
        note = self.work.find("update_customer", {"customer": case.customer["customer"]})
        reason = self._refusal(case)
        if reason:
            on_record = (
                describe(note, "noted on the customer's record", "a note on the customer's record")
                if note
                else "no note made"
            )
            return f"{lead}left for a person: {reason}. {on_record[0].upper()}{on_record[1:]}."
        return lead + "; ".join(self._effects(case, refund, note)) + "."

    def _effects(self, case: Case, refund: Use | None, note: Use | None) -> list[str]:
        amount = case.amount(_amount(case, refund))
        parts = [describe(refund, f"{amount} refunded to the {case.card}", f"a refund of {amount}")]
        if note is not None:
            parts.append(describe(note, "customer record updated", "an update of the customer record"))
        email = self.work.find("send_email", {"to": case.customer.get("email")})
        if email is not None:
            parts.append(describe(email, "email sent", f"an email to {case.customer.get('email')}"))
        elif case.wants_no_email:
            parts.append("no email, as the customer asked")
        return parts

    def _other_skips(self) -> list[str]:
        known = {case.number for case in self.cases} | {str(case.ticket.get("ticket")) for case in self.cases}
        skipped = sorted(self.skipped - known)
        return [f"- Left alone, as you asked: {listed(skipped)}."] if skipped else []


def _amount(case: Case, refund: Use | None) -> Decimal:
    """What was really paid when the tool says so (a person may have changed it), else what was asked for."""
    if refund is None:
        return min(case.asked, case.left)
    paid = refund.data.get("amount") if refund.happened and isinstance(refund.data, dict) else None
    return money(paid if paid is not None else refund.args.get("amount"))


def _sure(case: Case) -> float:
    return 0.96 if case.photos and case.carrier else 0.95


def _email(case: Case, amount: Decimal) -> str:
    first = case.name.split()[0]
    return (
        f"Hello {first},\n\nI am sorry that your order {case.number} reached you damaged. What you sent us shows it "
        f"clearly, so there is nothing more you need to do.\n\nWe are refunding {case.amount(amount)} to the "
        f"{case.card} that you paid with. You can keep or recycle the damaged item.\n\nHarbor & Pine customer care"
    )


def _with_note(case: Case, note: str) -> str:
    before = str(case.customer.get("notes") or "").strip()
    return f"{before}\n{note}" if before else note


def _tag(task: str) -> str:
    match = re.search(r"\btag(?:ged)?\W+(?:with\W+|as\W+)?([a-z]+(?:-[a-z]+)+)\b", task, re.IGNORECASE)
    if match:
        return match.group(1)
    spoken = re.search(r"damaged[ -]in[ -]transit", task, re.IGNORECASE)
    return "damaged-in-transit" if spoken else ""


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _count(number: int, noun: str) -> str:
    return f"{number} {_plural(number, noun)}"


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"
