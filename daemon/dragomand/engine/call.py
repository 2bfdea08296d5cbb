"""One API call, whose it is, and by what right it is made."""

from collections.abc import Callable
from dataclasses import dataclass, field

from dragoman_protocol.limits import CallCounts
from dragoman_protocol.session import Usage

from dragomand.policy.fair_queue import Priority
from dragomand.upstream.interface import Failure
from dragomand.upstream.limits_heard import LimitsHeard

from .admission import ANY_MODELS, Admission, Permit, WaitingSink, untold
from .admission.asked import Reservation
from .provider_limits import ProviderLimits


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose call it is."""

    client: str
    name: str = ""
    turn_id: str | None = None
    priority: Priority = "interactive"
    session_id: str | None = None
    models: str = ANY_MODELS
    """The family of models that its turn asked for."""
    credential: str = "apiKey"
    """Which credential pays."""
    max_cost_usd: float | None = None
    """What the turn's calls may cost together, as far as their cost is known."""
    program: bool = False
    """Whether it is a program with a token of its own, whose calls belong to no turn."""
    waiting: WaitingSink = field(default=untold, compare=False, repr=False)
    """Told when a call has to wait."""

NOBODY = Payer("daemon", "a process that nobody uses yet")


@dataclass(slots=True)
class Grant:
    """The right to make calls, until it is revoked."""

    grant_id: str
    digest: bytes = field(repr=False)
    payer: Callable[[], Payer]
    """Whose calls they are at this moment."""
    name: str | None
    """The label of a program's token; None for a run of Claude Code."""
    created_at: float
    tcp: bool = False
    """Whether it is good on a port of the loopback interface, beside the private socket."""
    counts: CallCounts = field(default_factory=CallCounts)
    rehearsal: str | None = None
    """While it is set, nothing is passed on: what contains this is answered with it."""
    cuts: set[Callable[[], None]] = field(default_factory=set)
    """Called when it is revoked: each ends a connection that uses it."""
    failure: Failure | None = None
    """Why the newest of its calls that failed did; None: none has."""


class Call:
    """One admitted call. Whoever carries it out notes what the answer says; nothing noted is a failure."""

    __slots__ = (
        "_door", "_heard", "_limits", "_permit", "begun", "cost_usd", "failure", "finished", "status",
        "unasked", "usage",
    )  # fmt: skip

    def __init__(self, limits: ProviderLimits | None, door: Admission, permit: Permit) -> None:
        """Begin; nothing is known yet. *limits* is told what is said of them, beside the *door*."""
        self._limits = limits
        self._door = door
        self._permit = permit
        self._heard: Failure | None = None
        self.status: int | None = None
        """HTTP status of the answer."""
        self.usage: Usage | None = None
        """What the answer says it took; None while it has not."""
        self.failure: Failure | None = None
        """Why the provider refused it, where it did and said so."""
        self.finished = False
        """Whether the answer came to its end."""
        self.cost_usd: float | None = None
        """What it cost, estimated; None: unknown."""
        self.unasked = False
        """Whether the provider was never asked, so that there is nothing to count."""
        self.begun = False
        """Whether something of the answer has been passed on: then it is not made once more."""

    @property
    def reservation(self) -> Reservation | None:
        """The money that was put aside for it."""
        return self._permit.reservation

    def note_limits(self, heard: LimitsHeard) -> None:
        """Pass on what the answer says of the provider's limits."""
        if self._limits is not None:
            self._limits.hear(heard)
        self._door.hearing.of_call(self._permit, heard)
        if heard.failure is not None:
            self.failure = self._heard = heard.failure

    def settle(self) -> None:
        """Tell the door what became of it; the permit is given back next."""
        permit, usage = self._permit, self.usage
        if usage is not None:
            permit.input_tokens = usage.input_tokens + usage.cache_creation_tokens
            permit.output_tokens = usage.output_tokens
        permit.sent = not self.unasked
        permit.succeeded = self.finished and self.status is not None and self.status < 400
        if self.failure is not None and self.failure is not self._heard:
            self._door.hearing.failed(permit, self.failure)
