"""The limits of one credential for one family of models: rate, concurrency, breaker; and all such pools."""

from collections.abc import Callable, Iterator

from dragoman_protocol.breaker import BreakerInfo

from dragomand.engine.errors import EngineError
from dragomand.policy.breaker import Breaker
from dragomand.policy.concurrency import MovingCeiling
from dragomand.policy.rate_limiter import RateLimiter

from .asked import Asked, Blocked
from .credential import Credential
from .settings import DoorSettings

MOST_POOLS = 64
"""How many families are told apart; what comes beyond shares the one of no name."""


class ProviderBreaker:
    """The breaker of one host and family, with what its state is told from."""

    __slots__ = ("breaker", "host", "models", "opened_at", "reason", "told")

    def __init__(self, host: str, models: str) -> None:
        """Begin closed."""
        self.host = host
        self.models = models
        self.breaker = Breaker()
        self.opened_at: float | None = None
        """Unix seconds."""
        self.reason: str | None = None
        """What the newest failure said."""
        self.told = "closed"
        """The state that was told last."""

    def info(self, now: float, wall: float) -> BreakerInfo:
        """Return it as it is told."""
        seen = self.breaker.snapshot(now)
        is_open = seen.state != "closed"
        return BreakerInfo(
            host=self.host,
            models=self.models,
            state=seen.state,
            failures=seen.failures,
            opened_at=self.opened_at if is_open else None,
            retry_at=wall + seen.retry_after if seen.state == "open" else None,
            reason=self.reason if is_open else None,
        )


class Pool:
    """What is shared by all calls of one credential to one family."""

    __slots__ = ("batch", "ceiling", "credential", "limiter", "models", "provider")

    def __init__(
        self,
        credential: Credential,
        models: str,
        provider: ProviderBreaker,
        settings: DoorSettings,
        now: float,
    ) -> None:
        """Begin with nothing known."""
        self.credential = credential
        self.models = models
        self.provider = provider
        self.ceiling = MovingCeiling(settings.calls_at_start or settings.max_calls, most=settings.max_calls)
        self.limiter = RateLimiter()
        self.batch = 0
        self.apply(settings, now)

    def apply(self, settings: DoorSettings, now: float) -> None:
        """Take new figures; what is used and learned stays."""
        self.ceiling.bound(1, settings.max_calls)
        self.limiter.configure("requestsPerMinute", "requests", settings.requests_per_minute, 60, now)
        self.limiter.configure("inputTokensPerMinute", "input", settings.input_tokens_per_minute, 60, now)
        self.limiter.configure("outputTokensPerMinute", "output", settings.output_tokens_per_minute, 60, now)

    def blocks(self, asked: Asked, now: float, wall: Callable[[], float]) -> Blocked | None:
        """Return why no call could succeed now, whatever it is: credential, quota, breaker."""
        credential = self.credential
        if not credential.clear:
            blocked = credential.blocks(asked, now, wall())
            if blocked is not None:
                return blocked
        wait = self.provider.breaker.refusal(now)
        return None if wait is None else self._blocked_by_breaker(asked, wait, now)

    def _blocked_by_breaker(self, asked: Asked, wait: float, now: float) -> Blocked:
        provider = self.provider
        which = f"{provider.host or 'the provider'} ({provider.models})"
        if provider.breaker.state(now) == "half_open":
            text = f"A few calls try whether {which} is back."
            return Blocked("breaker", text, now + provider.breaker.timeout_s, certain=False)
        why = f" The last failure: {provider.reason}" if provider.reason else ""
        text = f"Circuit breaker open, service degraded: {which} failed; next try in {wait:.1f} s.{why}"
        refusal = None
        if asked.priority == "interactive":
            refusal = EngineError("circuit_open", text, retry_after_ms=max(1, round(wait * 1000)))
        return Blocked("breaker", text, now + wait, refusal=refusal)


class Pools:
    """Every pool, breaker and credential that something was asked of."""

    def __init__(self, settings: DoorSettings, clock: Callable[[], float]) -> None:
        """Make them as they are asked for."""
        self._settings = settings
        self._clock = clock
        self._pools: dict[tuple[str, str], Pool] = {}
        self.credentials: dict[str, Credential] = {}
        self.breakers: dict[tuple[str, str], ProviderBreaker] = {}
        self.host_of: Callable[[str], str] = lambda _credential: ""
        """Whom a credential's calls go to."""

    def __iter__(self) -> Iterator[Pool]:
        """Return every pool, in the order in which they came to be."""
        return iter(list(self._pools.values()))

    def of(self, asked: Asked) -> Pool:
        """Return the pool of what is asked for."""
        found = self._pools.get((asked.credential, asked.models))
        return found if found is not None else self.get(asked.credential, asked.models)

    def get(self, credential: str, models: str) -> Pool:
        """Return the pool of *credential* for *models*."""
        found = self._pools.get((credential, models))
        if found is not None:
            return found
        if len(self._pools) >= MOST_POOLS and models:
            return self.get(credential, "")
        made = self._pools[(credential, models)] = Pool(
            self.credential(credential),
            models,
            self.breaker(self.host_of(credential), models),
            self._settings,
            self._clock(),
        )
        return made

    def credential(self, name: str) -> Credential:
        """Return a credential's state."""
        found = self.credentials.get(name)
        if found is None:
            settings = self._settings
            found = self.credentials[name] = Credential(
                name, probe_s=settings.auth_probe_s, reserved_share=settings.reserved_share
            )
        return found

    def breaker(self, host: str, models: str) -> ProviderBreaker:
        """Return the breaker of a host for a family."""
        found = self.breakers.get((host, models))
        if found is None:
            found = self.breakers[(host, models)] = ProviderBreaker(host, models)
            _apply_to_breaker(found.breaker, self._settings)
        return found

    def apply(self, settings: DoorSettings) -> None:
        """Take new figures."""
        self._settings = settings
        now = self._clock()
        for pool in self:
            pool.apply(settings, now)
        for provider in self.breakers.values():
            _apply_to_breaker(provider.breaker, settings)
        for credential in self.credentials.values():
            credential.probe_s = settings.auth_probe_s
            credential.reserve(settings.reserved_share)


def _apply_to_breaker(breaker: Breaker, settings: DoorSettings) -> None:
    breaker.failure_threshold = settings.failure_threshold
    breaker.timeout_s = settings.breaker_s
    breaker.longest_s = settings.longest_breaker_s
    breaker.success_threshold = settings.success_threshold
    breaker.half_open_requests = settings.half_open_requests
