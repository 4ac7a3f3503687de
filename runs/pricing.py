"""What a model call costs, from the price list bundled with genai-prices. Offline: nothing here starts an update."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal

import genai_prices

from runs.engine.types import Price, Usage

logger = logging.getLogger(__name__)

PROVIDER = "anthropic"
PRICE_LIST = f"genai-prices-{genai_prices.__version__}"
SIMULATED = "simulated"
NANODOLLAR = Decimal("0.000000001")


def price(model: str, usage: Usage, *, simulated: bool, at: datetime) -> Price:
    """`usd` to nine decimals; None when the price is unknown. `price_id` names the list and its entry. Never raises."""
    if simulated:
        return Price(usd=Decimal(0), price_id=SIMULATED)
    found = _calculate(model, usage, at)
    if found is None:
        return Price(usd=None)
    price_id = f"{PRICE_LIST}/{found.provider.id}/{found.model.id}"
    return Price(usd=found.total_price.quantize(NANODOLLAR), price_id=price_id)


def worst_price(model: str, input_tokens: int, output_tokens: int) -> Decimal | None:
    """The most a call of this size can cost: every input token at the dearest of the input and cache-write rates."""
    at = datetime.now(UTC)
    ways = (
        Usage(input_tokens=input_tokens, output_tokens=output_tokens),
        Usage(cache_write_5m_tokens=input_tokens, output_tokens=output_tokens),
        Usage(cache_write_1h_tokens=input_tokens, output_tokens=output_tokens),
    )
    prices = [found.total_price for usage in ways if (found := _calculate(model, usage, at)) is not None]
    return max(prices).quantize(NANODOLLAR) if prices else None


def cache_saved(model: str, usage: Usage, *, at: datetime | None = None) -> Decimal | None:
    """What the same tokens would have cost without a cache, less what they cost. Negative when writing cost more."""
    at = at or datetime.now(UTC)
    plain = Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.output_tokens)
    cached, uncached = _calculate(model, usage, at), _calculate(model, plain, at)
    if cached is None or uncached is None:
        return None
    return (uncached.total_price - cached.total_price).quantize(NANODOLLAR)


def _calculate(model: str, usage: Usage, at: datetime) -> genai_prices.types.PriceCalculation | None:
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
        )
    except LookupError:
        return None
    except Exception:  # the call is made and paid for: a price that can't be worked out must not lose its record
        logger.exception("no price for a call of model %s", model)
        return None
