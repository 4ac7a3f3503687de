"""What a selection of actions amounts to, in words: totals, and what of it cannot be undone."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from runs.previews import Effect, counted, money


def totals_line(effects: Sequence[Effect]) -> str:
    """`Sends $84.00, changes 1 record, emails 1 person.`"""
    terms = [f"sends {' and '.join(_sums(effects))}"] if any(effect.amount is not None for effect in effects) else []
    for verb, one, many in dict.fromkeys((e.verb, e.one, e.many) for e in effects if e.amount is None):
        same = [effect for effect in effects if (effect.verb, effect.one) == (verb, one) and effect.amount is None]
        terms.append(f"{verb} {counted(_count(same), one, many)}")
    line = ", ".join(terms)
    return f"{line[:1].upper()}{line[1:]}." if line else ""


def final_line(nouns: Sequence[str]) -> str:
    """`The refund and the email cannot be undone.`"""
    terms = [
        f"the {noun}" if nouns.count(noun) == 1 else counted(nouns.count(noun), noun, plural(noun))
        for noun in dict.fromkeys(nouns)
    ]
    if not terms:
        return ""
    line = f"{', '.join(terms[:-1])} and {terms[-1]}" if len(terms) > 1 else terms[0]
    return f"{line[:1].upper()}{line[1:]} cannot be undone."


def plural(noun: str) -> str:
    return f"{noun}s"


def _sums(effects: Sequence[Effect]) -> list[str]:
    sums: dict[str, Decimal] = {}
    for effect in effects:
        if effect.amount is not None:
            sums[effect.currency] = sums.get(effect.currency, Decimal(0)) + effect.amount
    return [money(total, currency) for currency, total in sums.items()]


def _count(effects: Sequence[Effect]) -> int:
    """People are counted once, however many e-mails they get."""
    if any(effect.people for effect in effects):
        return len({person.casefold() for effect in effects for person in effect.people})
    return sum(effect.count for effect in effects)


def chips(effects: Sequence[Effect]) -> tuple[tuple[str, str], ...]:
    """Icon and words for the row of the list: `$84.00`, `1 record`, `1 email`."""
    found = [("banknote", total) for total in _sums(effects)]
    for icon, one, many in dict.fromkeys((e.icon, e.one, e.many) for e in effects if e.amount is None):
        same = [effect for effect in effects if (effect.icon, effect.one) == (icon, one) and effect.amount is None]
        words = ("email", "emails") if icon == "mail" else (one, many)
        found.append((icon, counted(sum(effect.count for effect in same), *words)))
    return tuple(found)
