"""API calls: who may make one, what each took, and for whom it was made.

A *grant* is the right to make calls without knowing the credential: each run of Claude Code gets one, and
each program that was given a token. What travels is its bearer; here only a digest of it is kept. A call is
admitted through the one door and settled, on every path, by what its answer says as it goes by.
"""

import hashlib
import hmac
import random
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, TypeVar

from dragoman_protocol.limits import CallCounts, ClientCounts, TurnCounts
from dragoman_protocol.session import Usage

from .admission import Admission, Asked, WaitingSink, family_of, untold
from .admission.asked import Reservation
from .budgets import Budgets
from .call import NOBODY, Call, Grant, Payer
from .errors import EngineError
from .provider_limits import ProviderLimits
from .retries import Retries
from .spend import Payment, Spend

BEARER_PREFIX = "dragoman"
MOST_CLIENTS = 256
"""How many clients' counts are kept, those that called last."""
MOST_TURNS = 64
"""How many turns' counts are kept, those that called last."""

MOST_QUOTAS = 10
"""So often one call waits for a quota to return, and finds another one used up."""

T = TypeVar("T")


class Calls:
    """Owner of all grants and counts."""

    def __init__(
        self,
        admission: Admission,
        *,
        clock: Callable[[], float],
        queue_timeout_s: float,
        limits: ProviderLimits | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        """Admit calls through *admission*, each after *queue_timeout_s* at most; *clock* is Unix seconds.

        *limits* is told what the answers say of the provider's limits, *budgets* what they cost.
        """
        self._budgets = budgets
        self.admission = admission
        self._clock = clock
        self._queue_timeout_s = queue_timeout_s
        self._grants: dict[str, Grant] = {}
        self._total = CallCounts()
        self._clients: OrderedDict[str, ClientCounts] = OrderedDict()
        self._turns: OrderedDict[str, TurnCounts] = OrderedDict()
        self._costs: OrderedDict[str, list[float]] = OrderedDict()
        self.retries = Retries(
            admission.call_gate.retries, chance=random.random, attempts=admission.settings.attempts
        )
        self.keep: Callable[[], Awaitable[object]] = _nothing
        """Writes down what was found out of limits."""
        self.on_unused: Callable[[], None] = lambda: None
        """Called when the last grant was revoked."""
        self.limits = limits or ProviderLimits()
        """What the provider says of its limits."""
        self.unheard: frozenset[str] = frozenset()
        """Credentials of another provider, whose limits are not these."""

    # -- grants

    def grant(self, name: str | None = None, *, tcp: bool = False) -> tuple[Grant, str]:
        """Make a grant and its bearer, which nobody can tell from the grant. *name*: for a program."""
        grant_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        payer = NOBODY if name is None else Payer(f"gateway:{grant_id}", name, program=True)
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

    def rehearse(self, grant_id: str, mark: str | None) -> None:
        """Let the calls of a grant go nowhere from now on (*mark*), or to the provider again (None)."""
        grant = self._grants.get(grant_id)
        if grant is not None:
            grant.rehearsal = mark

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

    def call(self, grant: Grant, model: str | None = None) -> AbstractAsyncContextManager[Call]:
        """Wait for a permit for one call of *grant*, hold it for the block, and count what it took.

        *model*: whom it is for, where that is known. Raises `EngineError`, see `Admission.admit`.
        """
        payer = grant.payer()
        if model is not None:
            payer = replace(payer, models=family_of(model))
        return _Admitted(self, payer, self._asked(payer, self._queue_timeout_s), grant, payer.waiting)

    def call_of(self, payer: Payer, waiting: WaitingSink) -> AbstractAsyncContextManager[Call]:
        """Like `call`, for one that the daemon itself makes for the turn of *payer*; *waiting* is told of it.

        The turn holds its own permit meanwhile. Nobody who holds a call's waits for a turn's, so neither can
        wait for itself. Raises `EngineError`: `queue_timeout`, but for a batch, which its deadline ends.
        """
        timeout_s = None if payer.priority == "batch" else self._queue_timeout_s
        return _Admitted(self, payer, self._asked(payer, timeout_s, bounded=False), waiting=waiting)

    def whole_turn(self, payer: Payer, waiting: WaitingSink) -> AbstractAsyncContextManager[Call]:
        """Wait for one permit for all the calls of a turn that the daemon does not see; none is counted."""
        timeout_s = None if payer.priority == "batch" else self._queue_timeout_s
        asked = self._asked(payer, timeout_s, bounded=False)
        return _Admitted(self, payer, asked, waiting=waiting, counted=False)

    async def carry_out(
        self,
        admit: Callable[[], AbstractAsyncContextManager[Call]],
        once: Callable[[Call], Awaitable[T]],
        *,
        patient: bool = False,
    ) -> T:
        """Make a call, and once more while it fails, nothing has been passed on, and retries are left.

        *admit* waits for each attempt's permit, *once* makes it and notes what became of it. Who is *patient*
        waits at the door until a used up quota returns. Returns what the last attempt returned. Raises what
        *once* raises, and `EngineError` if the first is not admitted.
        """
        failed = 0
        result: T | None = None
        while True:
            try:
                async with admit() as call:
                    result = await once(call)
            except EngineError:
                if not failed:
                    raise
                return result  # type: ignore[return-value]  # there was a first attempt
            failure = call.failure
            failed += 1
            if failure is None or call.begun:
                return result
            if failure.category in ("quota", "auth"):
                # Before anybody hears of it: a daemon that is killed then must not ask again.
                await self.keep()
            parked = patient and failure.category == "quota" and failed < MOST_QUOTAS
            if not parked and not await self.retries.again(failure, failed):
                return result

    def overspent(self, payer: Payer) -> float | None:
        """Return what the calls of *payer*'s turn have cost if that is all they may, or more; else None."""
        if payer.max_cost_usd is None or payer.turn_id is None:
            return None
        spent = sum(self._costs.get(payer.turn_id, ()))
        return spent if spent >= payer.max_cost_usd else None

    def exhausted(self, payer: Payer) -> EngineError | None:
        """Return why the turn of *payer* may make no further call: a budget it belongs to is spent."""
        spend = None if self._budgets is None else self._budgets.of_turn(payer.turn_id)
        return None if spend is None else spend.exhausted

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

    def _asked(self, payer: Payer, timeout_s: float | None, *, bounded: bool = True) -> Asked:
        return Asked(
            client=payer.client,
            name=payer.name,
            priority=payer.priority,
            timeout_s=timeout_s,
            credential=payer.credential,
            models=payer.models,
            session_id=payer.session_id,
            turn_id=payer.turn_id,
            bounded=bounded,
            reserve=self._reserve(payer),
        )

    def _reserve(self, payer: Payer) -> Callable[[], Reservation] | None:
        """Return what puts money aside for a call of a program's own; a turn has its own already."""
        budgets = self._budgets
        if budgets is None or not payer.program:
            return None
        payment = Payment(client=payer.name, upstream="gateway", model=payer.models)
        return lambda: budgets.reserve(payment)

    def _settle(self, call: Call, payer: Payer, grant: Grant | None = None) -> None:
        if call.unasked:
            return
        failed = not call.finished or call.status is None or call.status >= 400
        if isinstance(call.reservation, Spend):
            call.reservation.call_ended(call.usage, call.cost_usd, failed=failed)
        client = _newest(
            self._clients,
            payer.client,
            lambda: ClientCounts(client=payer.client, name=payer.name),
            MOST_CLIENTS,
        )
        counted: list[CallCounts] = [self._total, client]
        if grant is not None:
            counted.append(grant.counts)
        if payer.turn_id is not None:
            turn_id, of = payer.turn_id, payer.client
            counted.append(
                _newest(self._turns, turn_id, lambda: TurnCounts(turn_id=turn_id, client=of), MOST_TURNS)
            )
            spend = None if self._budgets is None else self._budgets.of_turn(turn_id)
            if call.cost_usd is not None and spend is not None:
                spend.spent(call.cost_usd)
            if call.cost_usd is not None:
                total = _newest(self._costs, turn_id, lambda: [0.0], MOST_TURNS)
                total[0] += call.cost_usd
        for counts in counted:
            counts.calls += 1
            counts.failed += failed
            if call.usage is not None:
                counts.usage = added(counts.usage, call.usage)


class _Admitted:
    """A call from its permit to its settlement."""

    __slots__ = ("_call", "_calls", "_counted", "_entry", "_grant", "_payer")

    def __init__(
        self,
        calls: Calls,
        payer: Payer,
        asked: Asked,
        grant: Grant | None = None,
        waiting: WaitingSink = untold,
        *,
        counted: bool = True,
    ) -> None:
        self._counted = counted
        self._calls = calls
        self._payer = payer
        self._grant = grant
        self._entry = calls.admission.admit_call(asked, waiting)

    async def __aenter__(self) -> Call:
        permit = await self._entry.__aenter__()
        calls = self._calls
        limits = None if self._payer.credential in calls.unheard else calls.limits
        self._call = call = Call(limits, calls.admission, permit)
        return call

    async def __aexit__(self, *raised: Any) -> None:
        try:
            if self._counted:
                self._calls._settle(self._call, self._payer, self._grant)
            self._call.settle()
        finally:
            await self._entry.__aexit__(*raised)


def added(one: Usage, other: Usage) -> Usage:
    """Return the sum of both."""
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cache_read_tokens=one.cache_read_tokens + other.cache_read_tokens,
        cache_creation_tokens=one.cache_creation_tokens + other.cache_creation_tokens,
    )


async def _nothing() -> None:
    pass


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
