"""API calls: who may make one, what each took, and for whom it was made.

A *grant* is the right to make calls without knowing the credential: each run of Claude Code gets one, and
each program that was given a token. What travels is its bearer; here only a digest of it is kept. A call is
admitted through the one door and settled, on every path, by what its answer says as it goes by.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from dragoman_protocol.limits import CallCounts, ClientCounts, TurnCounts
from dragoman_protocol.session import Usage

from dragomand.policy.fair_queue import Priority
from dragomand.upstream.interface import Failure
from dragomand.upstream.limits_heard import LimitsHeard

from .admission import Admission
from .provider_limits import ProviderLimits

BEARER_PREFIX = "dragoman"
MOST_CLIENTS = 256
"""How many clients' counts are kept, those that called last."""
MOST_TURNS = 64
"""How many turns' counts are kept, those that called last."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Payer:
    """Whose call it is."""

    client: str
    name: str = ""
    turn_id: str | None = None
    priority: Priority = "interactive"


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
    cuts: set[Callable[[], None]] = field(default_factory=set)
    """Called when it is revoked: each ends a connection that uses it."""


class Call:
    """One admitted call. Whoever carries it out notes what the answer says; nothing noted is a failure."""

    __slots__ = ("_limits", "failure", "finished", "status", "usage")

    def __init__(self, limits: ProviderLimits) -> None:
        """Begin; nothing is known yet."""
        self._limits = limits
        self.status: int | None = None
        """HTTP status of the answer."""
        self.usage: Usage | None = None
        """What the answer says it took; None while it has not."""
        self.failure: Failure | None = None
        """Why the provider refused it, where it did and said so."""
        self.finished = False
        """Whether the answer came to its end."""

    def note_limits(self, heard: LimitsHeard) -> None:
        """Pass on what the answer says of the provider's limits."""
        self._limits.hear(heard)


class Calls:
    """Owner of all grants and counts."""

    def __init__(
        self,
        admission: Admission,
        *,
        clock: Callable[[], float],
        queue_timeout_s: float,
        limits: ProviderLimits | None = None,
    ) -> None:
        """Admit calls through *admission*, each after *queue_timeout_s* at most; *clock* is Unix seconds.

        *limits* is told what the answers say of the provider's limits.
        """
        self._admission = admission
        self._clock = clock
        self._queue_timeout_s = queue_timeout_s
        self._grants: dict[str, Grant] = {}
        self._total = CallCounts()
        self._clients: OrderedDict[str, ClientCounts] = OrderedDict()
        self._turns: OrderedDict[str, TurnCounts] = OrderedDict()
        self.on_unused: Callable[[], None] = lambda: None
        """Called when the last grant was revoked."""
        self.limits = limits or ProviderLimits()
        """What the provider says of its limits."""

    # -- grants

    def grant(self, name: str | None = None, *, tcp: bool = False) -> tuple[Grant, str]:
        """Make a grant and its bearer, which nobody can tell from the grant. *name*: for a program."""
        grant_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        payer = NOBODY if name is None else Payer(f"gateway:{grant_id}", name)
        grant = Grant(grant_id, _digest(secret), lambda: payer, name, self._clock(), tcp)
        self._grants[grant_id] = grant
        return grant, f"{BEARER_PREFIX}-{grant_id}-{secret}"

    def find(self, bearer: str) -> Grant | None:
        """Return the grant of *bearer*; None if there is none (any more)."""
        prefix, _, rest = bearer.partition("-")
        grant_id, _, secret = rest.partition("-")
        grant = self._grants.get(grant_id)
        digest = _digest(secret)
        if grant is None or prefix != BEARER_PREFIX or not hmac.compare_digest(grant.digest, digest):
            return None
        return grant

    def charge(self, grant_id: str, payer: Callable[[], Payer]) -> None:
        """From now on the calls of a grant are *payer*'s; nothing happens if it was revoked."""
        grant = self._grants.get(grant_id)
        if grant is not None:
            grant.payer = payer

    def revoke(self, grant_id: str) -> bool:
        """End a grant and cut its calls off; tells whether there was one."""
        grant = self._grants.pop(grant_id, None)
        if grant is None:
            return False
        for cut in list(grant.cuts):
            cut()
        if not self._grants:
            self.on_unused()
        return True

    def revoke_programs(self) -> None:
        """End what programs were given; a run's grant ends with its run."""
        for grant in self.grants:
            if grant.name is not None:
                self.revoke(grant.grant_id)

    @property
    def grants(self) -> list[Grant]:
        """Every grant, oldest first."""
        return list(self._grants.values())

    # -- calls

    @asynccontextmanager
    async def call(self, grant: Grant) -> AsyncIterator[Call]:
        """Wait for a permit for one call of *grant*, hold it for the block, and count what it took.

        Raises `EngineError`: `queue_full`, `queue_timeout`.
        """
        payer = grant.payer()
        async with self._admission.admit_call(
            payer.client, priority=payer.priority, timeout_s=self._queue_timeout_s
        ):
            call = Call(self.limits)
            try:
                yield call
            finally:
                self._settle(grant, payer, call)

    # -- counts

    @property
    def total(self) -> CallCounts:
        """What all calls took."""
        return self._total

    def clients(self, only: str | None = None) -> list[ClientCounts]:
        """Return what each client's calls took, or *only* one's."""
        return [each for each in self._clients.values() if only in (None, each.client)]

    def turns(self, only: str | None = None) -> list[TurnCounts]:
        """Return what each turn's calls took, or those of *only* one client."""
        return [each for each in self._turns.values() if only in (None, each.client)]

    def _settle(self, grant: Grant, payer: Payer, call: Call) -> None:
        client = _newest(
            self._clients,
            payer.client,
            lambda: ClientCounts(client=payer.client, name=payer.name),
            MOST_CLIENTS,
        )
        counted: list[CallCounts] = [self._total, grant.counts, client]
        if payer.turn_id is not None:
            turn_id, of = payer.turn_id, payer.client
            counted.append(
                _newest(self._turns, turn_id, lambda: TurnCounts(turn_id=turn_id, client=of), MOST_TURNS)
            )
        failed = not call.finished or call.status is None or call.status >= 400
        for counts in counted:
            counts.calls += 1
            counts.failed += failed
            if call.usage is not None:
                counts.usage = added(counts.usage, call.usage)


def added(one: Usage, other: Usage) -> Usage:
    """Return the sum of both."""
    return Usage(**{name: getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__})


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _newest(kept: OrderedDict[str, T], key: str, make: Callable[[], T], most: int) -> T:
    """Return the entry of *key*, now the newest; the oldest beyond *most* is forgotten."""
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]
