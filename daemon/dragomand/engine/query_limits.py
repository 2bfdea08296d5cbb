"""What a query may take: how long it may wait and run, where it may work."""

from dataclasses import dataclass

from dragoman_protocol.query import QueryRunParams
from dragoman_protocol.stream import StreamOpenParams


@dataclass(slots=True)
class QueryLimits:
    """The settings of it; milliseconds."""

    timeout_ms: int
    queue_timeout_ms: int
    roots: list[str]
    allowed_env: list[str]

    def time_of(self, params: QueryRunParams, default_ms: int | None) -> int | None:
        """Return from arrival to answer; None: the default, which for a batch begins with its admission.

        So a batch that is parked for hours goes on by itself. *default_ms* is the caller's own default.
        """
        if params.timeout_ms is not None or params.priority == "batch":
            return params.timeout_ms
        return default_ms or self.timeout_ms

    def queue_time_in_stream_s(self, params: StreamOpenParams) -> float | None:
        """Return the same of a turn of a stream that was opened with *params*."""
        return None if params.priority == "batch" else self.queue_timeout_ms / 1000

    def queue_time_s(self, params: QueryRunParams, timeout_ms: int | None) -> float | None:
        """Return how long it may wait, in seconds; None: without limit."""
        given = params.queue_timeout_ms
        if given is None and params.priority == "interactive":
            given = self.queue_timeout_ms
        bounds = [each for each in (given, timeout_ms) if each is not None]
        return min(bounds) / 1000 if bounds else None
