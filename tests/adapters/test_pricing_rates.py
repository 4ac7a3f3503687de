"""Rates are a short cut: for every model of the list they say exactly what the list says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import genai_prices
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runs import pricing
from runs.engine.types import Usage

TOKENS = st.integers(0, 3_000_000)
USAGES = st.builds(
    Usage,
    input_tokens=TOKENS,
    output_tokens=TOKENS,
    cache_read_tokens=TOKENS,
    cache_write_5m_tokens=TOKENS,
    cache_write_1h_tokens=TOKENS,
)
MODELS = sorted(
    model.id
    for provider in genai_prices.data_snapshot.get_snapshot().providers
    if provider.id == pricing.PROVIDER
    for model in provider.models
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(usage=USAGES, model=st.sampled_from(MODELS))
def test_the_short_cut_says_what_the_list_says(usage: Usage, model: str) -> None:
    at = datetime.now(UTC)
    found = pricing._calculate(model, usage, at, set())
    said = pricing.price(model, usage, simulated=False, at=at)
    assert said.usd == (found and found.total_price.quantize(pricing.NANODOLLAR))


def test_the_short_cut_is_taken_where_prices_are_flat_only() -> None:
    assert pricing._rates("claude-sonnet-5-5", frozenset()) is not None
    assert pricing._rates("claude-haiku-5-5", frozenset()) is None, "its price depends on the size of the prompt"
    assert pricing._rates("nobody-knows-this-one", frozenset()) is None


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "claude-haiku-5-5"])
def test_the_worst_case_is_never_below_a_price(model: str) -> None:
    worst = pricing.worst_price(model, 1000, 100)
    for kind in ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"):
        tokens: dict[str, Any] = {kind: 1000, "output_tokens": 100}
        usage = Usage(**tokens)
        price = pricing.price(model, usage, simulated=False, at=datetime.now(UTC)).usd
        assert worst is not None
        assert price is not None
        assert price <= worst
