"""Several queries as one plan."""

from typing import Any

from .content import Prompt
from .query import AnswerOptions, Priority, QueryRunResult
from .values import Params, Value


class OrchestrateItem(AnswerOptions, kw_only=True):
    """One query of a plan."""

    prompt: Prompt
    timeout_ms: int | None = None
    """Default 300 000 (03.4)."""


class OrchestrateParallelParams(Params):
    """Run independent queries side by side (00.17, 03.2), each in a session of its own."""

    items: list[OrchestrateItem]
    """1 to 1000."""
    cwd: str | None = None
    """Needed by every item that Claude Code answers."""
    max_concurrent: int = 5
    """1 to 100 (03.3)."""
    priority: Priority = "batch"
    partial_result_token: str | int | None = None
    """Outcomes arrive as `$/progress` with this token as they come."""


class OrchestrateOutcome(Value):
    """What became of one item; one failure never discards the others (03.9)."""

    index: int
    result: QueryRunResult | None = None
    error: dict[str, Any] | None = None
    """`{kind, message, …}`."""


class OrchestrateParallelResult(Value):
    """Every outcome, in the order of the items."""

    data: list[OrchestrateOutcome]
    succeeded: int
    failed: int
