"""The settings of limits: what the file says, what was set at run time, and who hears of a change.

What is set at run time is kept in the store and goes before the file. All of a change or nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from dragoman_protocol.limits import ClientShare, LimitsGetResult, SettingValue

from dragomand.store.store import Store

from .errors import EngineError
from .sessions import storage_errors

_STATE = "limits/settings"
MOST_CLIENTS = 1000
"""Clients that may have a share of their own."""
WEIGHTS = (0.01, 100.0)
"""The least and the greatest weight."""


class Known(NamedTuple):
    """One setting that may be changed at run time."""

    name: str
    """As in the file: `limits.queriesPerMinute`."""
    type: Any
    value: SettingValue
    """What the file, or else the default, says."""
    expected: str
    """What it must be, in words."""


class _Kept(msgspec.Struct):
    """As it is stored."""

    settings: dict[str, SettingValue] = {}
    clients: dict[str, ClientShare] = {}


class LimitSettings:
    """Owner of what is set at run time."""

    def __init__(
        self, store: Store, known: Iterable[Known], on_change: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """Keep changes in *store*; *on_change* gets all values by name, at once and after every change."""
        self._store = store
        self._known = {each.name: each for each in known}
        self._kept = _Kept()
        self._on_change = on_change

    async def load(self) -> None:
        """Take up what was set before. What this version does not know, or no longer takes, is left alone."""
        kept = await self._store.get_state(_STATE)
        if kept is not None:
            found = msgspec.json.decode(kept, type=_Kept)
            good = {name: value for name, value in found.settings.items() if self._fits(name, value)}
            self._kept = _Kept(good, found.clients)
        self._on_change(self.values)

    @property
    def values(self) -> dict[str, Any]:
        """What holds now, by name."""
        return {name: self._kept.settings.get(name, each.value) for name, each in self._known.items()}

    @property
    def clients(self) -> Mapping[str, ClientShare]:
        """The clients that have a share of their own, by the name they give themselves."""
        return self._kept.clients

    def get(self) -> LimitsGetResult:
        """Return what holds, and what of it was set at run time."""
        return LimitsGetResult(
            settings=self.values, changed=sorted(self._kept.settings), clients=dict(self._kept.clients)
        )

    async def set(
        self, settings: Mapping[str, SettingValue], clients: Mapping[str, ClientShare | None]
    ) -> LimitsGetResult:
        """Change what is named; None goes back to the file, and to equal shares.

        Raises `invalid_params` with the path of the first that is wrong, `storage_full`, `storage_failed`;
        then nothing has changed.
        """
        changed = _Kept(dict(self._kept.settings), dict(self._kept.clients))
        for name, value in settings.items():
            self._change(changed, name, value)
        for name, share in clients.items():
            _share(changed, name, share)
        with storage_errors():
            await self._store.set_state(_STATE, msgspec.json.encode(changed))
        self._kept = changed
        self._on_change(self.values)
        return self.get()

    def _change(self, kept: _Kept, name: str, value: SettingValue) -> None:
        known = self._known.get(name)
        path = f"$.settings[{name!r}]"
        if known is None:
            raise _wrong(path, f"{name} is not a limit that can be set; limits/get lists those that can.")
        if value is None:
            kept.settings.pop(name, None)
        elif self._fits(name, value):
            kept.settings[name] = value
        else:
            raise _wrong(path, f"{name}: expected {known.expected}, got {value!r}.")

    def _fits(self, name: str, value: SettingValue) -> bool:
        if name not in self._known:
            return False
        try:
            msgspec.convert(value, self._known[name].type)
        except msgspec.ValidationError:
            return False
        return True


def _share(kept: _Kept, name: str, share: ClientShare | None) -> None:
    path = f"$.clients[{name!r}]"
    if share is None:
        kept.clients.pop(name, None)
        return
    least, greatest = WEIGHTS
    if share.weight is not None and not least <= share.weight <= greatest:
        raise _wrong(f"{path}.weight", f"a weight is from {least:g} to {greatest:g}, got {share.weight:g}.")
    kept.clients[name] = share
    if len(kept.clients) > MOST_CLIENTS:
        raise _wrong(path, f"{MOST_CLIENTS} clients have a share of their own, as many as may.")


def _wrong(path: str, text: str) -> EngineError:
    return EngineError("invalid_params", f"Invalid parameters at {path}: {text}", path=path, reason=text)
