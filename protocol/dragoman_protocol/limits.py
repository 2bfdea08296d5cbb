"""What is shared, and how much of it is in use."""

from .values import Value


class LimitsStateResult(Value):
    """The door's state (`limits/state`)."""

    running: int
    """Turns that run now."""
    queued: int
    """Turns that wait to be admitted."""
    max_running: int
    max_queued: int
    max_queued_per_client: int
