"""The right to run one turn or to make one call, and what became of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dragomand.policy.rate_limiter import Charge
from dragomand.upstream.interface import FailureCategory

from .asked import Asked, Reservation
from .credential import Trial

if TYPE_CHECKING:
    from .pool import Pool


class Permit:
    """Given by the door; settled when its block ends, on every path."""

    __slots__ = (
        "asked", "breaker", "charge", "depth", "expected", "failure", "input_tokens",
        "output_tokens", "pool", "queued_ms", "reasons", "reservation", "sent", "since", "succeeded", "trial",
    )  # fmt: skip

    def __init__(self, asked: Asked, depth: int, now: float) -> None:
        """Give what *asked* asked for, at *now* of the door's clock."""
        self.asked = asked
        self.depth = depth
        self.since = now
        self.expected = 0.0
        """What it was expected to take, in the queue's measure, if it has waited."""
        self.queued_ms = 0
        """How long it waited."""
        self.reasons: Mapping[str, int] | None = None
        """For what, in milliseconds by reason; None if it did not wait."""
        self.pool: Pool | None = None
        self.reservation: Reservation | None = None
        self.charge: Charge | None = None
        self.breaker = 0
        self.trial: Trial = ()
        # What becomes of it, noted by whoever has it:
        self.sent = True
        """A call: whether the provider was asked at all."""
        self.succeeded = False
        """A call: whether its answer is whole and good."""
        self.failure: FailureCategory | None = None
        """A call: why not. Neither: it was given up, which tells nothing of the provider."""
        self.input_tokens: int | None = None
        """What was not read from a cache."""
        self.output_tokens: int | None = None
