"""What the models' tokens cost, and which one an alias means (`dragoman_protocol.model` has the table).

Prices are Anthropic's list prices in US dollars for a million tokens, as Claude Code 2.1.331 reckons with
them. What a call to a model costs that is not here is unknown, not 0.
"""

from dataclasses import dataclass

from dragoman_protocol.model import BY_ALIAS


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write_5m: float
    cache_write_1h: float


_PRICES = {
    "claude-opus-5-5": Price(4.0, 20.0, 0.2, 5.0, 8.0),
    "claude-sonnet-5-5": Price(2.0, 10.0, 0.1, 2.5, 4.0),
    "claude-haiku-5-5": Price(0.1, 0.5, 0.01, 0.125, 0.2),
}
_LONG_PROMPT_TOKENS = 100_000
_LONG_PROMPTS = {"claude-haiku-5-5": Price(0.5, 2.5, 0.05, 0.625, 1.0)}
"""Prices of a call whose prompt, cached or not, is longer than that."""


@dataclass(slots=True)
class Tokens:
    """What one call used."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    """All tokens written to the cache, those for an hour included."""
    cache_write_1h: int = 0


def resolve(name: str) -> str:
    """Return the full name of a model that is named by alias or in full."""
    found = BY_ALIAS.get(name)
    return name if found is None else found.model


def cost_usd(model: str | None, tokens: Tokens) -> float | None:
    """Return the estimated cost of a call; None for a model whose prices are not known."""
    name = model or ""
    price = _PRICES.get(name)
    if price is None:
        name = _of_a_cloud(name)
        price = _PRICES.get(name)
        if price is None:
            return None
    if tokens.input + tokens.cache_read + tokens.cache_write > _LONG_PROMPT_TOKENS:
        price = _LONG_PROMPTS.get(name, price)
    dollars = (
        tokens.input * price.input
        + tokens.output * price.output
        + tokens.cache_read * price.cache_read
        + (tokens.cache_write - tokens.cache_write_1h) * price.cache_write_5m
        + tokens.cache_write_1h * price.cache_write_1h
    )
    return dollars / 1_000_000


def _of_a_cloud(name: str) -> str:
    """Return the model's own name: `us.anthropic.claude-opus-5-5` and `claude-opus-5-5@default` are one."""
    return name.rpartition("anthropic.")[2].partition("@")[0]
