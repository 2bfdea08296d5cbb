"""The breaker: a provider that fails is left alone for a while."""

from typing import Literal

import msgspec

from .values import Params, Value

BreakerWord = Literal["closed", "open", "half_open"]
"""Calls go through · are refused at once · a few try whether the provider is back (04.6)."""


class BreakerInfo(Value):
    """One breaker."""

    host: str
    """The provider's host, or `claudeCode` for the starting of its processes: there is one breaker for each
    kind of start (settings, environment, folder) that crashed, and one for what is new."""
    models: str
    """The family of models; empty for `claudeCode`."""
    state: BreakerWord
    failures: int = 0
    """In a row."""
    opened_at: float | None = None
    """Unix seconds."""
    retry_at: float | None = None
    """Unix seconds at which the next call is let through."""
    reason: str | None = None
    """What the failure that opened it said."""


class BreakerStateResult(Value):
    """Every breaker that has counted something."""

    breakers: list[BreakerInfo] = msgspec.field(default_factory=list)


class BreakerResetParams(Params):
    """Which to close; nothing: all."""

    host: str | None = None
    models: str | None = None


class BreakerResetResult(Value):
    """They are closed."""

    reset: int


class BreakerChangedParams(BreakerInfo, kw_only=True):
    """A provider's breaker opened, tries out, or closed (`breaker/changed`)."""
