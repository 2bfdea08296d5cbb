"""The caps on spending: what the settings say, what was set at run time, what a person raised for a while.

The later goes before the earlier. What was set or raised is kept in the store. Money: millionths of a dollar.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast, get_args

import msgspec
from dragoman_protocol.budget import BudgetScope

from dragomand.policy.budget_ledger import BudgetLedger, Kind, Scope
from dragomand.store.store import Store

from .errors import EngineError
from .sessions import storage_errors

MICRO = 1_000_000
"""Parts of a dollar that money is counted in."""
NO_CAP = 10**15
"""A cap that nothing reaches, for one that is to have none where others of its kind have one."""
MOST_CAPS = 10_000
"""Caps that may be set at run time."""
EACH = "*"
"""The key for each of a kind that has no cap of its own."""

_STATE = "budget/caps"
_KEYED = frozenset({"client", "project", "session", "tree"})
_SETTINGS: dict[str, Kind] = {f"budget.{kind}Usd": kind for kind in
                              ("hour", "day", "client", "project", "session", "tree")}  # fmt: skip


class Cap(msgspec.Struct):
    """One that was set or raised."""

    kind: Kind
    key: str
    limit: int | None
    """None: no cap."""
    until: float | None = None
    """Unix seconds; a raised one ends with its window."""


class Caps:
    """Owner of the caps; what holds is in the ledger."""

    def __init__(self, ledger: BudgetLedger, store: Store) -> None:
        """Put caps into *ledger* and keep them in *store*."""
        self._ledger = ledger
        self._store = store
        self._settings: dict[Kind, int | None] = {}
        self._set: dict[tuple[Kind, str], Cap] = {}
        self._raised: dict[tuple[Kind, str], Cap] = {}

    async def load(self) -> None:
        """Take up what was set and raised before."""
        kept = await self._store.get_state(_STATE)
        if kept is not None:
            for cap in msgspec.json.decode(kept, type=list[Cap]):
                (self._set if cap.until is None else self._raised)[cap.kind, cap.key] = cap
        self._put_all()

    def apply(self, values: Mapping[str, Any]) -> None:
        """Take the settings' caps, in dollars by name; 0: none."""
        for name, kind in _SETTINGS.items():
            self._settings[kind] = round(values[name] * MICRO) or None
        self._put_all()

    def expire(self, now: float) -> None:
        """End what was raised for a window that is over."""
        over = [cap for cap in self._raised.values() if cap.until is not None and cap.until <= now]
        for cap in over:
            del self._raised[cap.kind, cap.key]
            self._put(cap.kind, cap.key)

    async def set(self, scope: BudgetScope, key: str | None, limit_usd: float | None) -> Scope:
        """Set a cap for good. Raises `invalid_params`, `storage_full`, `storage_failed`."""
        cap = Cap(scope, _checked_key(scope, key), micro(limit_usd))
        if (scope, cap.key) not in self._set and len(self._set) >= MOST_CAPS:
            raise EngineError("invalid_params", f"{MOST_CAPS} caps are set, as many as may.", path="$.key")
        await self._keep([cap, *(each for each in self._all() if (each.kind, each.key) != (scope, cap.key))])
        self._set[scope, cap.key] = cap
        self._raised.pop((scope, cap.key), None)
        self._put(scope, cap.key)
        return Scope(scope, cap.key)

    async def raise_(self, scope: Scope, limit_usd: float, until: float | None) -> None:
        """Raise a cap until its window ends (None: for good). Raises like `set`."""
        cap = Cap(scope.kind, scope.name, micro(limit_usd), until)
        held = self._set if until is None else self._raised
        await self._keep([cap, *(each for each in self._all() if each is not held.get((cap.kind, cap.key)))])
        held[cap.kind, cap.key] = cap
        self._put(cap.kind, cap.key)

    def has(self, kind: Kind, key: str) -> bool:
        """Whether anything of *kind* and *key* is capped."""
        scope = Scope(kind, key)
        return scope in self._ledger.caps or kind in self._ledger.default_caps

    @property
    def single(self) -> list[Scope]:
        """Those that have a cap of their own."""
        return [scope for scope, cap in self._ledger.caps.items() if cap < NO_CAP]

    @property
    def each(self) -> Mapping[Kind, int]:
        """The caps for each of a kind that has none of its own."""
        return self._ledger.default_caps

    # -- within

    def _all(self) -> list[Cap]:
        return [*self._set.values(), *self._raised.values()]

    async def _keep(self, caps: Iterable[Cap]) -> None:
        with storage_errors():
            await self._store.set_state(_STATE, msgspec.json.encode(list(caps)))

    def _put_all(self) -> None:
        for kind in cast("tuple[Kind, ...]", get_args(Kind)):
            self._put(kind, EACH if kind in _KEYED else "")
        for kind, key in (*self._set, *self._raised):
            self._put(kind, key)

    def _put(self, kind: Kind, key: str) -> None:
        cap = self._raised.get((kind, key)) or self._set.get((kind, key))
        general = key == EACH or kind not in _KEYED
        limit = cap.limit if cap is not None else self._settings.get(kind) if general else None
        if key == EACH:
            self._ledger.cap_each(kind, limit)
        elif cap is not None and limit is None:
            self._ledger.cap(Scope(kind, key), NO_CAP)
        else:
            self._ledger.cap(Scope(kind, key), limit)


def micro(usd: float | None) -> int | None:
    """Return dollars in millionths. Raises `invalid_params` for what is no amount."""
    if usd is None:
        return None
    if not 0 <= usd <= 1_000_000:
        text = f"limitUsd: expected an amount from 0 to 1 000 000 dollars, or null for no cap; got {usd}."
        raise EngineError("invalid_params", text, path="$.limitUsd", reason="out of range")
    return round(usd * MICRO)


def _checked_key(scope: BudgetScope, key: str | None) -> str:
    if scope in _KEYED:
        if not key:
            text = f"key: a cap of the scope {scope!r} needs the name of a {scope}, or '*' for each."
            raise EngineError("invalid_params", text, path="$.key", reason="missing")
        return key
    if key is not None:
        text = f"key: there is only one {scope!r}, so it has no key; got {key!r}."
        raise EngineError("invalid_params", text, path="$.key", reason="not allowed")
    return ""
