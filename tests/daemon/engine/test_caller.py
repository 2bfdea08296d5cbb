"""Who asks."""

import dataclasses

import pytest
from dragomand.engine.caller import Caller


def test_an_identity_cannot_be_changed() -> None:
    caller = Caller(id="c", name="vim", scopes=frozenset({"query"}))
    assert caller.approver is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        caller.scopes = frozenset({"admin"})  # type: ignore[misc]
