"""Money: what may be spent, what is spent, and whether it may be more. All in US dollars, estimated."""

from typing import Literal

from .values import Params, Value

BudgetScope = Literal["all", "hour", "day", "client", "project", "session", "tree"]
"""Everything ever · each hour · each day (UTC) · one client by name, each day · one working directory, each
day · one session · one orchestration with all below it."""


class BudgetState(Value):
    """One cap and what is left of it."""

    scope: BudgetScope
    key: str | None = None
    """Which client, project (its folder), session or tree; absent for `all`, `hour`, `day`. `*` is the cap
    for each that has none of its own; nothing is spent under it."""
    limit_usd: float | None = None
    """Absent: no cap."""
    spent_usd: float = 0.0
    """By settled turns. Turns whose cost is unknown are not in it."""
    reserved_usd: float = 0.0
    """Estimates of those that run now."""
    remaining_usd: float | None = None
    resets_at: float | None = None
    """Unix seconds at which it begins anew; of those that last an hour or a day."""


class BudgetGetParams(Params):
    """Which caps; nothing: every one that is set, and the hour's and the day's spending. What a setting
    (`budget.clientUsd` …) caps for each of its kind has the key `*`."""

    scope: BudgetScope | None = None
    key: str | None = None


class BudgetGetResult(Value):
    """The caps as they are."""

    budgets: list[BudgetState]


class BudgetSetParams(Params, kw_only=True):
    """Set, change or end one cap; it is kept over restarts."""

    scope: BudgetScope
    key: str | None = None
    """Needed for `client`, `project`, `session`, `tree`; `*` as the key means each of them that has
    no cap of its own."""
    limit_usd: float | None
    """Null: no cap."""


class BudgetSetResult(BudgetState, kw_only=True):
    """It holds from now on, also for what waits."""


class BudgetWarningParams(BudgetState, kw_only=True):
    """Four fifths of a cap are spent (`budget/warning`); told once for each cap and window."""


class BudgetExhaustedParams(BudgetState, kw_only=True):
    """A cap is reached: turns under it are refused (`budget/exhausted`)."""


class BudgetRaiseParams(Value, kw_only=True):
    """May more be spent? Sent by the daemon to the client whose turn the cap stopped (`budget/raise`)."""

    budget: BudgetState
    needed_usd: float
    """What the turn is expected to cost."""
    session_id: str | None = None
    expires_at: float
    """Unix seconds; without an answer by then the turn is refused."""


class BudgetRaiseResult(Value):
    """A person's word."""

    limit_usd: float | None = None
    """The new cap; absent: no, it stays."""
