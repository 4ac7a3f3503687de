"""Supplier research: find suppliers of a product, read each, compare them, and write to the best one when asked to."""

from __future__ import annotations

import re

from runs.samples.simulated.conversation import Conversation
from runs.samples.simulated.reply import JsonObject, Reply
from runs.samples.simulated.work import Work, describe, not_equipped

READS = ("search_suppliers", "read_supplier")
TASK = re.compile(r"supplier|source|vendor|manufactur|quote", re.IGNORECASE)
PRODUCT = (
    re.compile(r"suppliers?\s+(?:of|for)\s+(?P<product>[\w -]+)", re.IGNORECASE),
    re.compile(r"(?:find|compare|research|source|look for)\s+(?P<product>[\w -]+?)\s+suppliers?", re.IGNORECASE),
    re.compile(r"\bsource\s+(?P<product>[\w -]+)", re.IGNORECASE),
)
STOP = re.compile(r"\b(?:and|that|which|who|with|from|for|in|at|by|under|then|we|to|check|compare)\b.*", re.IGNORECASE)
COUNT_WORDS = re.compile(
    r"\b(?:the|a|an|some|new|our|at least|up to|two|three|four|five|best|good|other|\d+)\b", re.IGNORECASE
)
ASKS_TO_WRITE = re.compile(r"\b(?:write|e-?mail|ask|contact|outreach|quote|draft)", re.IGNORECASE)
DOUBT = re.compile(
    r"\bnot in it\b|\bnot listed\b|another company|says nothing|no record|could not|expired|\bnot\b", re.IGNORECASE
)
QUANTITY = re.compile(r"\b(?:for|of)\s+(\d{2,})\b")
MOST = 6


def respond(conversation: Conversation) -> Reply:
    missing = [tool for tool in READS if tool not in conversation.tools]
    return not_equipped(conversation, missing) if missing else Research(conversation).next()


def product_of(task: str) -> str:
    for pattern in PRODUCT:
        match = pattern.search(task)
        if match:
            product = COUNT_WORDS.sub(" ", STOP.sub("", match["product"]))
            if product.split():
                return " ".join(product.split())
    return ""


class Research:
    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.work = Work(conversation)
        self.product = product_of(conversation.task) or first_words(conversation.task)
        quantity = QUANTITY.search(conversation.task)
        self.quantity = int(quantity.group(1)) if quantity else 0
        self.found: list[JsonObject] = []
        self.read: list[JsonObject] = []

    def next(self) -> Reply:
        said = self._stage()
        if said is None or self.conversation.wrap_up or not self.conversation.may_use_tools:
            self.work.wanted.clear()
            return self.work.turn(self._answer())
        return self.work.turn(said)

    def _stage(self) -> str | None:
        for stage in (self._search, self._details, self._note, self._write):
            said = stage()
            if self.work.wanted:
                return said
        return None

    def _search(self) -> str:
        result = self.work.read("search_suppliers", f"Who makes {self.product}.", query=self.product)
        found = (result or {}).get("suppliers") or []
        words = {_stem(word) for word in self.product.casefold().split()}
        # The search holds any word; only what holds all of them is the product that was asked for.
        matching = [row for row in found if words <= {_stem(word) for word in re.findall(r"\w+", _text(row))}]
        self.found = (matching or found)[:MOST]
        return f"I look for suppliers of {self.product}."

    def _details(self) -> str:
        for row in self.found:
            why = "Certificate, lead time and what a second source says of it."
            details = self.work.read("read_supplier", why, supplier=str(row["supplier"]))
            if details:
                self.read.append({**row, **details})
        return f"{len(self.found)} candidates. I read each of them, with what a second source says of the certificate."

    def _note(self) -> str:
        if self.read and re.search(r"\bnote\b", self.conversation.task, re.IGNORECASE):
            text = "\n".join([f"Suppliers of {self.product}:", *self._comparison()])
            self.work.effect("write", {}, {"text": text}, "The task asks for the comparison in a note.", 0.97)
        return "All are read. I write the comparison into a note."

    def _write(self) -> str:
        best = self.best
        if best is None or not ASKS_TO_WRITE.search(self.conversation.task) or not best.get("contact_email"):
            return ""
        to = str(best["contact_email"])
        self.work.effect(
            "send_email",
            {"to": to},
            {"to": to, "subject": f"Request for a quote: {best['product']}", "body": _letter(best, self.quantity)},
            f"{best['name']} is the best fit whose certificate a second source confirms.",
            0.91,
        )
        return f"{best['name']} fits best: {_facts(best)}. I prepare a request for a quote."

    @property
    def best(self) -> JsonObject | None:
        """The cheapest whose certificate is confirmed; one whose minimum order is too large only when all are."""
        ranked = self._ranked()
        return ranked[0] if ranked and is_confirmed(ranked[0]) else None

    def _ranked(self) -> list[JsonObject]:
        return sorted(
            self.read,
            key=lambda row: (not is_confirmed(row), self._is_too_many(row), float(row.get("unit_price") or 0)),
        )

    def _is_too_many(self, row: JsonObject) -> bool:
        return self.quantity > 0 and int(row.get("minimum_order") or 0) > self.quantity

    def _comparison(self) -> list[str]:
        return [f"- {row['name']} ({row.get('country')}): {_facts(row)}. {_verdict(row)}" for row in self._ranked()]

    def _answer(self) -> str:
        if not self.read:
            problems = " ".join(f"{problem}." for problem in self.work.problems)
            return f"I found no supplier of {self.product}. {problems}".strip()
        lines = self._comparison()
        lines += [f"- Not possible: {problem}." for problem in self.work.problems]
        return "\n".join([f"Suppliers of {self.product}, the soundest first:", "", *lines, "", self._advice()])

    def _advice(self) -> str:
        best = self.best
        if best is None:
            return "I recommend none of them: no certificate was confirmed by a second source."
        email = self.work.find("send_email", {"to": best.get("contact_email")})
        sent = describe(email, "request for a quote sent", f"a request for a quote to {best.get('contact_email')}")
        written = f" {sent[0].upper()}{sent[1:]}." if email else ""
        others = [row["name"] for row in self._ranked()[1:] if is_confirmed(row)]
        next_best = f" The runner-up is {others[0]}." if others else ""
        why = "the lowest price among those whose certificate is confirmed"
        return f"I recommend {best['name']}: {why}.{next_best}{written}"


def first_words(task: str) -> str:
    words = [word for word in re.findall(r"[A-Za-z]{4,}", task) if not TASK.search(word)]
    return " ".join(words[:3]) or "the product"


def is_confirmed(row: JsonObject) -> bool:
    return bool(row.get("second_source")) and not DOUBT.search(str(row["second_source"]))


def _verdict(row: JsonObject) -> str:
    state = "Confirmed" if is_confirmed(row) else "Not confirmed"
    return f"{row.get('certificate') or 'No certificate'}. {state}: {row.get('second_source') or 'no second source'}"


def _facts(row: JsonObject) -> str:
    price = float(row.get("unit_price") or 0)
    return (
        f"{row.get('product')}, {price:.2f} a piece from {row.get('minimum_order')} pieces, "
        f"{row.get('lead_time_days')} days lead time"
    )


def _letter(row: JsonObject, quantity: int) -> str:
    return (
        f"Hello,\n\nwe are looking for a supplier of this article of yours: {row.get('product')}. Could you send us a "
        f"quote for {quantity or row.get('minimum_order')} pieces, with your terms of delivery and a copy of the "
        f"certificate ({row.get('certificate')})?\n\nKind regards\nHarbor & Pine purchasing"
    )


def _text(row: JsonObject) -> str:
    return " ".join(str(value) for value in row.values()).casefold()


def _stem(word: str) -> str:
    return word.removesuffix("s") if len(word) > 3 else word
