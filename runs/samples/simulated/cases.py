"""One refund request: what is known of it and what the policy makes of it. Nothing here knows a name or an amount."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from runs.samples.simulated.reply import JsonObject

DAMAGE = re.compile(
    r"dent|crack|broke|snap|torn|tear|damag|shatter|scratch|crush|smash|bent|chip|dropp|\bdrop\b|impact|leak",
    re.IGNORECASE,
)
MONEY = re.compile(r"(?:[$€£]\s?|\b(?:USD|EUR|GBP)\s?)(\d+(?:,\d{3})*(?:\.\d{2})?)|\b(\d+\.\d{2})\b")
NO_EMAIL = re.compile(
    r"no e-?mail|without an? e-?mail|don['’]t (?:e-?mail|write)|do not (?:e-?mail|write)", re.IGNORECASE
)
BY_EMAIL = re.compile(r"by e-?mail|via e-?mail|e-?mail me", re.IGNORECASE)
DAYS = re.compile(r"(\d+)\s+days")


@dataclass(frozen=True, slots=True)
class Policy:
    """`days` is the age up to which an order may be refunded; `section` where that is written."""

    days: int
    section: str
    evidence_section: str

    @classmethod
    def read(cls, sections: Sequence[JsonObject]) -> Policy | None:
        days = _section(sections, lambda text: bool(DAYS.search(text)) and "refund" in text.casefold())
        if days is None:
            return None
        match = DAYS.search(str(days.get("text")))
        evidence = _section(sections, lambda text: "photo" in text.casefold() or "evidence" in text.casefold())
        limit = int(match.group(1)) if match else 0
        return cls(limit, str(days.get("section")), str((evidence or days).get("section")))


def _section(sections: Sequence[JsonObject], wanted: Any) -> JsonObject | None:
    return next((section for section in sections if wanted(str(section.get("text") or ""))), None)


@dataclass(frozen=True, slots=True)
class Case:
    """A ticket with its order and customer, as the tools gave them."""

    ticket: JsonObject
    order: JsonObject
    customer: JsonObject

    @property
    def number(self) -> str:
        return str(self.order["order"])

    @property
    def name(self) -> str:
        return str(self.customer.get("name") or self.customer["customer"])

    @property
    def message(self) -> str:
        return str(self.ticket.get("message") or "")

    @property
    def left(self) -> Decimal:
        return money(self.order.get("total")) - money(self.order.get("refunded"))

    @property
    def asked(self) -> Decimal:
        """What the customer asks for: the smallest amount in the message that fits the order, else all that is left."""
        named = [money((match.group(1) or match.group(2)).replace(",", "")) for match in MONEY.finditer(self.message)]
        fitting = [amount for amount in named if 0 < amount <= money(self.order.get("total"))]
        return min(fitting) if fitting else self.left

    @property
    def photos(self) -> list[str]:
        shown = [str(photo.get("shows") or "") for photo in self.ticket.get("photos") or []]
        return [text for text in shown if DAMAGE.search(text)]

    @property
    def carrier(self) -> str:
        note = str(self.order.get("carrier_note") or "")
        return note if DAMAGE.search(note) else ""

    @property
    def wants_no_email(self) -> bool:
        return bool(NO_EMAIL.search(self.message))

    @property
    def wants_email(self) -> bool:
        return not self.wants_no_email and bool(BY_EMAIL.search(self.message))

    @property
    def card(self) -> str:
        payment = self.order.get("payment") or {}
        return f"{payment.get('method', 'card')} ending {payment.get('ending', '')}".removesuffix(" ending ")

    @property
    def evidence(self) -> str:
        parts = [f"the photo shows {self.photos[0].rstrip('.')}"] if self.photos else []
        parts += [f"the carrier's note says: {self.carrier.rstrip('.')}"] if self.carrier else []
        return "; ".join(parts)

    def amount(self, value: Decimal) -> str:
        return f"{value:.2f} {self.order.get('currency') or ''}".strip()

    def refusal(self, policy: Policy) -> str:
        """Why this request is not for the agent to pay; empty when it is."""
        age = self.order.get("days_old")
        if not isinstance(age, int) or age > policy.days:
            return f"order older than {policy.days} days"
        if not self.photos and not self.carrier:
            return "no photo or carrier record shows the damage"
        return ""

    @property
    def refunded_already(self) -> bool:
        refunded = money(self.order.get("refunded"))
        return self.left <= 0 or refunded >= self.asked > 0


def money(value: Any) -> Decimal:
    try:
        return Decimal(str(value or 0)).quantize(Decimal("0.01"))
    except InvalidOperation:
        return Decimal(0)
