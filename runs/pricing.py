"""What a model call costs: the price list bundled with genai-prices, and what a team pays instead of it.

Offline: nothing here starts an update.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

import genai_prices

from runs.engine.types import Price, Usage

logger = logging.getLogger(__name__)

PROVIDER = "anthropic"
PRICE_LIST = f"genai-prices-{genai_prices.__version__}"
SIMULATED = "simulated"
NANODOLLAR = Decimal("0.000000001")
MILLION = 1_000_000
# The list has no prices by place; the provider adds a tenth to what is served in the United States only.
GEO_FACTORS: Final = {"us": Decimal("1.1")}
# A name the list does not know would silently give its standard price.
CONTEXTS: Final[dict[str, dict[str, str]]] = {"batch": {"processing": "batch"}, "fast": {"speed": "fast"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A row of `PriceOverride`. `rates` are dollars for a million tokens, by names of `Usage`; empty with a factor."""

    id: str
    model: str
    geo: str
    starts_on: date
    ends_on: date | None
    factor: Decimal | None
    rates: dict[str, Decimal]

    def holds(self, model: str, geo: str, day: date) -> bool:
        in_time = self.starts_on <= day and (self.ends_on is None or day < self.ends_on)
        return in_time and self.geo in ("", geo) and fnmatchcase(model.lower(), self.model.lower())


def price(model: str, usage: Usage, *, simulated: bool, at: datetime, overrides: Sequence[Override] = ()) -> Price:
    """`usd` to nine decimals; None when the price is unknown. `price_id` names the list and its entry, and what was
    applied to it: "genai-prices-1.0/anthropic/m?batch&geo=us*1.1", "override/1a2b". Never raises."""
    if simulated:
        return Price(usd=Decimal(0), price_id=SIMULATED)
    asked = set(usage.terms.split(";")) - {""}
    geo = next((term.removeprefix("geo=") for term in asked if term.startswith("geo=")), "")
    ours = [one for one in overrides if one.holds(model, geo, at.astimezone(UTC).date())]
    base = _base(model, usage, at, asked, ours)
    if base is None:
        return Price(usd=None)
    usd, price_id = base
    factors = _factors(geo, ours)
    for _, factor in factors:
        usd *= factor
    marks = [*sorted(asked & CONTEXTS.keys()), *(name for name, _ in factors)]
    return Price(usd=usd.quantize(NANODOLLAR), price_id=(price_id + ("?" + "&".join(marks) if marks else ""))[:120])


def _base(
    model: str, usage: Usage, at: datetime, asked: set[str], ours: Sequence[Override]
) -> tuple[Decimal, str] | None:
    """Our own rates, the latest first; else the list. (dollars, id)."""
    own = max((one for one in ours if one.rates), key=lambda one: (one.starts_on, one.id), default=None)
    if own is not None:
        tokens = (getattr(usage, name) * rate for name, rate in own.rates.items())
        return sum(tokens, Decimal(0)) / MILLION, f"override/{own.id[-12:]}"
    if min(usage.output_tokens, usage.prompt_tokens) >= 0 and (rates := _rates(model, frozenset(asked))):
        return rates.of(usage), rates.price_id
    found = _calculate(model, usage, at, asked)
    return None if found is None else (found.total_price, _id(found))


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars for one token of each kind."""

    price_id: str
    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal

    def of(self, usage: Usage) -> Decimal:
        return (
            self.input * usage.input_tokens
            + self.output * usage.output_tokens
            + self.cache_read * usage.cache_read_tokens
            + self.cache_write_5m * usage.cache_write_5m_tokens
            + self.cache_write_1h * usage.cache_write_1h_tokens
        )


@lru_cache(maxsize=256)
def _rates(model: str, asked: frozenset[str]) -> Rates | None:
    """What the list says of a token, for a model whose price is the same at all sizes and times: asked once, because
    the list takes half a millisecond for each answer. None for all others."""
    at = datetime.now(UTC)
    kinds = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
    usages: list[dict[str, Any]] = [{kind: MILLION} for kind in kinds]
    found = [_calculate(model, Usage(**usage), at, set(asked)) for usage in usages]
    if any(each is None or not _is_flat(each.model.prices) for each in found):
        return None
    return Rates(_id(found[0]), *(each.total_price / MILLION for each in found))


def _is_flat(prices: object) -> bool:
    tiered = genai_prices.types.TieredPrices
    return isinstance(prices, genai_prices.types.ModelPrice) and not any(
        isinstance(value, tiered) for value in vars(prices).values()
    )


def _id(found: Any) -> str:
    return f"{PRICE_LIST}/{found.provider.id}/{found.model.id}"


def _factors(geo: str, ours: Sequence[Override]) -> list[tuple[str, Decimal]]:
    """(mark, factor). For a place a team's own factor stands instead of ours."""
    latest: dict[str, tuple[Override, Decimal]] = {}
    for one in sorted(ours, key=lambda one: (one.starts_on, one.id)):
        if one.factor is not None:
            latest[one.geo] = one, one.factor
    found = [(f"override-{one.id[-12:]}*{factor.normalize():f}", factor) for one, factor in latest.values()]
    if geo in GEO_FACTORS and geo not in latest:
        found.append((f"geo={geo}*{GEO_FACTORS[geo]}", GEO_FACTORS[geo]))
    return found


def worst_price(
    model: str, input_tokens: int, output_tokens: int, *, terms: str = "", overrides: Sequence[Override] = ()
) -> Decimal | None:
    """The most a call of this size can cost: every input token at the dearest of the input and cache-write rates."""
    at = datetime.now(UTC)
    ways = (
        Usage(input_tokens=input_tokens, output_tokens=output_tokens),
        Usage(cache_write_5m_tokens=input_tokens, output_tokens=output_tokens),
        Usage(cache_write_1h_tokens=input_tokens, output_tokens=output_tokens),
    )
    prices = [
        price(model, dataclasses.replace(usage, terms=terms), simulated=False, at=at, overrides=overrides).usd
        for usage in ways
    ]
    return max((usd for usd in prices if usd is not None), default=None)


def cache_saved(model: str, usage: Usage, *, at: datetime | None = None) -> Decimal | None:
    """What the same tokens would have cost without a cache, less what they cost. Negative when writing cost more."""
    at = at or datetime.now(UTC)
    plain = Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.output_tokens)
    cached, uncached = _calculate(model, usage, at, set()), _calculate(model, plain, at, set())
    if cached is None or uncached is None:
        return None
    saved: Decimal = uncached.total_price - cached.total_price
    return saved.quantize(NANODOLLAR)


def _calculate(model: str, usage: Usage, at: datetime, asked: set[str]) -> Any:
    context: dict[str, str] = {}
    for name in sorted(asked & CONTEXTS.keys()):
        context |= CONTEXTS[name]
    try:
        return genai_prices.calc_price(
            genai_prices.Usage(
                # Anthropic's input count leaves the cache out; this library's includes it.
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cache_read_tokens,
                cache_write_tokens=usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
                cache_write_5m_tokens=usage.cache_write_5m_tokens,
                cache_write_1h_tokens=usage.cache_write_1h_tokens,
            ),
            model,
            # Other providers' prices for a model of the same name are not what this endpoint bills.
            provider_id=PROVIDER,
            genai_request_timestamp=at,
            price_context=context or None,
        )
    except LookupError:
        return None
    except Exception:  # the call is made and paid for: a price that can't be worked out must not lose its record
        logger.exception("no price for a call of model %s", model)
        return None
