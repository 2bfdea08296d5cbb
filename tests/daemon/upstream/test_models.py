"""Aliases and prices."""

import pytest
from dragomand.upstream.models import Tokens, cost_usd, resolve


def test_aliases() -> None:
    assert resolve("opus") == "claude-opus-5-5"
    assert resolve("claude-x") == "claude-x"


MILLION = 1_000_000


@pytest.mark.parametrize(
    ("alias", "tokens", "dollars"),
    [
        ("opus", Tokens(input=MILLION), 4),
        ("opus", Tokens(output=MILLION), 20),
        ("opus", Tokens(cache_read=MILLION), 0.2),
        ("opus", Tokens(cache_write=MILLION), 5),
        ("opus", Tokens(cache_write=MILLION, cache_write_1h=MILLION), 8),
        ("sonnet", Tokens(input=MILLION, output=MILLION), 12),
        ("haiku", Tokens(input=100_000), 0.01),
        ("haiku", Tokens(input=MILLION), 0.5),
        ("haiku", Tokens(cache_write=MILLION), 0.625),
    ],
)
def test_the_prices_that_claude_code_reckons_with(alias: str, tokens: Tokens, dollars: float) -> None:
    assert cost_usd(resolve(alias), tokens) == pytest.approx(dollars)


@pytest.mark.parametrize(
    "name",
    ["us.anthropic.claude-haiku-5-5", "anthropic.claude-haiku-5-5", "claude-haiku-5-5@default"],
)
def test_a_clouds_name_has_the_models_price(name: str) -> None:
    assert cost_usd(name, Tokens(input=MILLION)) == pytest.approx(0.5)


def test_what_has_no_price_has_no_cost() -> None:
    assert cost_usd("claude-of-tomorrow", Tokens(input=1)) is None
    assert cost_usd(None, Tokens()) is None
