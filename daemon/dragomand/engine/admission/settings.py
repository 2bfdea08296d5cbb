"""How much the door lets through: every figure of it, as one value that can be replaced at run time."""

import msgspec

from dragomand.policy.fair_queue import Priority


class Share(msgspec.Struct, frozen=True):
    """What one client, by the name it gives itself, gets of what is shared."""

    weight: float = 1.0
    priority: Priority | None = None
    """The class of all it asks for; None: as it asks."""


class DoorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The figures. None: no such bound."""

    max_running: int = 8
    """Turns at once."""
    max_calls: int = 32
    """API calls at once, of all pools together and of each."""
    calls_at_start: int | None = None
    """Calls at once of a pool of which nothing is known yet; None: `max_calls`."""
    max_nested: int = 1
    """How many of each depth may run where no place is free: who waits for them holds one."""
    keep_for_people: bool = True
    """Whether batch leaves the last place free while a person was active lately."""
    max_depth: int = 8
    """How deep turns may start turns."""
    max_queued: int = 512
    max_queued_per_client: int = 64
    queries_per_minute: int | None = None
    queries_per_hour: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    requests_per_minute: int | None = None
    failure_threshold: int = 5
    breaker_s: float = 60.0
    longest_breaker_s: float = 300.0
    success_threshold: int = 2
    half_open_requests: int = 2
    auth_probe_s: float = 60.0
    """After so long one call tries whether a refused credential is good again."""
    reserved_share: float = 0.0
    """The share of each usage window that is kept for people: batch is parked below it."""
    attempts: int = 3
    """How often a call is made at most while nothing of its answer has been passed on."""
    retry_budget: int = 10
    """How many repetitions all clients together can save up."""
    clients: dict[str, Share] = {}
