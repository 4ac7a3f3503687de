"""Numbers worked out by hand from the published dollars per million tokens."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from runs.engine.types import Price, Usage
from runs.pricing import cache_saved, price, worst_price

AT = datetime(2026, 11, 20, tzinfo=UTC)
LIST = "genai-prices-0.2.3/anthropic/"
# 5 x 2 + 128,955 x 0.10 + 1,000 x 2.5 + 253 x 4 + 500 x 10, all / 1,000,000
CACHED = Usage(
    input_tokens=5,
    cache_read_tokens=128_955,
    cache_write_5m_tokens=1000,
    cache_write_1h_tokens=253,
    output_tokens=500,
)


def usd(model: str, usage: Usage, at: datetime = AT) -> Decimal | None:
    return price(model, usage, simulated=False, at=at).usd


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a price was looked up on the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_cache_is_not_paid_twice() -> None:
    assert price("claude-sonnet-5-5", CACHED, simulated=False, at=AT) == Price(
        usd=Decimal("0.021417500"), price_id=f"{LIST}claude-sonnet-5-5"
    )


@pytest.mark.parametrize(
    ("model", "usage", "expected"),
    [
        ("claude-opus-5-5", Usage(input_tokens=1000, output_tokens=1000), "0.024"),
        ("claude-opus-5-5", Usage(cache_read_tokens=10_000), "0.002"),
        ("claude-fable-5-2", Usage(cache_write_5m_tokens=100, cache_write_1h_tokens=100), "0.0026"),
        ("claude-sonnet-4-5", Usage(input_tokens=1), "0.000003"),
        ("claude-haiku-5-5", Usage(input_tokens=1), "0.0000001"),
        ("claude-haiku-5-5-20261101", Usage(output_tokens=1), "0.0000005"),
        ("claude-sonnet-5-5", Usage(), "0"),
    ],
)
def test_rates(model: str, usage: Usage, expected: str) -> None:
    assert usd(model, usage) == Decimal(expected)


def test_a_tier_is_a_cliff_for_the_whole_prompt_cache_included() -> None:
    assert usd("claude-haiku-5-5", Usage(input_tokens=100_000, output_tokens=1000)) == Decimal("0.0105")
    assert usd("claude-haiku-5-5", Usage(input_tokens=100_001, output_tokens=1000)) == Decimal("0.0525005")
    assert usd("claude-haiku-5-5", Usage(input_tokens=1, cache_read_tokens=100_000)) == Decimal("0.0050005")


def test_price_of_the_day_of_the_call() -> None:
    usage = Usage(input_tokens=300_000, output_tokens=1000)
    assert usd("claude-opus-4-6", usage, datetime(2026, 3, 1, tzinfo=UTC)) == Decimal("3.0375")
    assert usd("claude-opus-4-6", usage, datetime(2026, 4, 1, tzinfo=UTC)) == Decimal("1.525")


def test_nine_decimals() -> None:
    found = usd("claude-sonnet-5-5", CACHED)
    assert found is not None
    assert found.as_tuple().exponent == -9


@pytest.mark.parametrize("model", ["", "llama3.3", "gpt-4o", "us.anthropic.claude-opus-5-5-v1:0", "x" * 5000])
def test_unknown_model_is_unpriced_never_zero(model: str) -> None:
    assert price(model, CACHED, simulated=False, at=AT) == Price(usd=None, price_id="")
    assert worst_price(model, 10, 10) is None
    assert cache_saved(model, CACHED) is None


def test_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    assert usd("claude-sonnet-5-5", Usage(input_tokens=-5)) is None
    assert "claude-sonnet-5-5" in caplog.text


def test_simulated_costs_nothing_and_says_so() -> None:
    assert price("any", CACHED, simulated=True, at=AT) == Price(usd=Decimal(0), price_id="simulated")


def test_worst_price_takes_the_dearest_input_rate() -> None:
    assert worst_price("claude-sonnet-5-5", 1000, 100) == Decimal("0.005")  # 1,000 x 4 + 100 x 10
    assert worst_price("claude-haiku-5-5", 100_001, 0) == Decimal("0.100001")
    assert worst_price("claude-haiku-5-5", 0, 0) == 0


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=5000, output_tokens=70),
        Usage(cache_read_tokens=5000, output_tokens=70),
        Usage(cache_write_5m_tokens=4000, input_tokens=1000, output_tokens=70),
        Usage(cache_write_1h_tokens=5000, output_tokens=70),
    ],
)
@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-2", "claude-sonnet-4-5"])
def test_no_call_costs_more_than_its_worst_price(model: str, usage: Usage) -> None:
    worst, real = worst_price(model, 5000, 70), usd(model, usage)
    assert worst is not None
    assert real is not None
    assert real <= worst


def test_what_the_cache_saved() -> None:
    # 130,213 x 2 + 500 x 10 is 0.265426 without a cache.
    assert cache_saved("claude-sonnet-5-5", CACHED, at=AT) == Decimal("0.265426") - Decimal("0.0214175")
    assert cache_saved("claude-sonnet-5-5", Usage(cache_write_5m_tokens=1000), at=AT) == Decimal("-0.0005")
