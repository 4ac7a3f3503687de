"""What the prompt cache saved, and what each part of a step's tokens cost: differences of list prices."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

from runs.engine.types import Usage
from runs.pricing import SIMULATED, price

KINDS = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens")
PROMPT_KINDS = KINDS[:4]
CACHE_KINDS = KINDS[1:4]
# Some models charge a whole request at another rate once its prompt is long, so rates are asked for within each band.
BAND_STARTS = (0, 100_001, 200_001)
_SAMPLE = 1_000
_MARGIN = 10_000


@lru_cache(maxsize=20_000)
def rate(model: str, kind: str, band: int, day: dt.date) -> Decimal | None:
    """Dollars for one token that day, in a request whose prompt lies in the band; None for an unknown model."""
    at = dt.datetime.combine(day, dt.time(12), dt.UTC)
    before = Usage(input_tokens=BAND_STARTS[band] + _MARGIN if band else 0)
    after = dataclasses.replace(before, **{kind: getattr(before, kind) + _SAMPLE})
    low = price(model, before, simulated=False, at=at).usd
    high = price(model, after, simulated=False, at=at).usd
    return None if low is None or high is None else (high - low) / _SAMPLE


def band_of(prompt_tokens: int) -> int:
    return max(index for index, start in enumerate(BAND_STARTS) if prompt_tokens >= start)


def is_listed(price_id: str) -> bool:
    """At the list price: not a team's own, a batch's or a region's."""
    return "?" not in price_id and not price_id.startswith("override/")


def is_whole(model: str, band: int, day: dt.date) -> bool:
    """Every token costs whole billionths of a dollar, so that nothing is rounded at list prices."""
    rates = [rate(model, kind, band, day) for kind in KINDS]
    return all(each is None or each.scaleb(9) % 1 == 0 for each in rates)


def ledger(
    model: str,
    price_id: str,
    counts: Mapping[str, int],
    expired: int,
    band: int,
    day: dt.date,
    paid_usd: Decimal = Decimal(0),
) -> tuple[Decimal, Decimal, Decimal] | None:
    """(saved by reads, paid for writes, lost to expiry) against the same tokens as plain input. What was written again
    because its time ran out is in the second too; the third says how much less it would have been as reads. None for
    an unknown model; nothing where nothing was paid. Where `price_id` says that `paid_usd` was not the list price (a
    team's own, a batch, a region) all three are in proportion to it."""
    if price_id == SIMULATED:
        return Decimal(0), Decimal(0), Decimal(0)
    plain = rate(model, "input_tokens", band, day)
    if plain is None:
        return None
    read, short, long = (rate(model, kind, band, day) or Decimal(0) for kind in CACHE_KINDS)
    written_short, written_long = counts["cache_write_5m_tokens"], counts["cache_write_1h_tokens"]
    paid = written_short * (short - plain) + written_long * (long - plain)
    dearest = long if written_long and not written_short else short
    share = Decimal(1)
    if not is_listed(price_id):
        listed = sum((counts[kind] * (rate(model, kind, band, day) or Decimal(0)) for kind in KINDS), Decimal(0))
        share = paid_usd / listed if listed else share
    return share * counts["cache_read_tokens"] * (plain - read), share * paid, share * expired * (dearest - read)


def split(model: str, price_id: str, counts: Mapping[str, int], day: dt.date) -> dict[str, Decimal] | None:
    """Each kind's cost at list price; None for an unknown model."""
    if price_id == SIMULATED:
        return dict.fromkeys(KINDS, Decimal(0))
    band = band_of(sum(counts.get(kind, 0) for kind in PROMPT_KINDS))
    rates = {kind: rate(model, kind, band, day) for kind in KINDS}
    return {kind: each * counts.get(kind, 0) for kind, each in rates.items() if each is not None} or None
