"""What somebody wants to be let in for, and what they get: asked, blocked, permit."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import msgspec
from dragoman_protocol.limits import WaitReason
from dragoman_protocol.stream import Waiting

from dragomand.engine.errors import EngineError
from dragomand.policy.fair_queue import Priority

Kind = Literal["turn", "call"]

FAMILIES = ("opus", "sonnet", "haiku")
"""Families of models that have limits of their own."""
ANY_MODELS = "default"
"""The pool of what names no model."""


class Reservation(Protocol):
    """What is put aside for a turn, beside its place: money."""

    def release(self) -> object:
        """Give back what is still put aside; called when the permit is given back."""


class Asked(msgspec.Struct, frozen=True):
    """Who wants to run a turn, or to make one API call, and how."""

    client: str
    name: str = ""
    """How the client calls itself."""
    priority: Priority = "interactive"
    timeout_s: float | None = None
    """How long it may wait; None: without limit."""
    credential: str = "apiKey"
    """Which credential pays, by a name that reveals nothing of it."""
    models: str = ANY_MODELS
    """The family of models, see `family_of`."""
    input_tokens: int = 0
    """A call's own estimate; 0: unknown."""
    session_id: str | None = None
    turn_id: str | None = None
    """The turn itself, or the turn that a call is made for."""
    parent: str | None = None
    """The turn in whose Claude Code process the client runs: it may have to wait for this one."""
    reserve: Callable[[], Reservation] | None = None
    """Called in the instant in which a turn is let in; raises `EngineError` if it may not be paid for."""
    bounded: bool = True
    """Whether it is refused where the queue is full. The call of a turn that runs is not."""


class Told(NamedTuple):
    """Why something waits, as it is told to who waits."""

    reason: WaitReason
    text: str
    """In words, with the figures."""
    position: int
    """How many are served before it, as it stands."""
    expected_in_s: float | None
    """Seconds until it is let in; None: nobody can say."""

    def event(self, wall: float) -> Waiting:
        """Return it as an event of a turn's stream; *wall* is the time, in Unix seconds."""
        wait = self.expected_in_s
        return Waiting(
            reason=self.reason,
            text=self.text,
            position=self.position,
            expected_at=None if wait is None else wall + wait,
        )


WaitingSink = Callable[[Told], None]
"""Told when something has to wait, and again when it waits for another reason."""


def untold(_told: Told) -> None:
    """Tell nobody."""


class Blocked(NamedTuple):
    """Why something may not go at this moment."""

    reason: WaitReason
    text: str
    until: float | None = None
    """The door's clock; None: until something ends or changes."""
    certain: bool = True
    """Whether nothing can let it in before; else it is only looked at again then."""
    refusal: EngineError | None = None
    """What who arrives now is told instead of waiting; who waits already waits on."""
    each_s: float | None = None
    """How many seconds more each one waits who stands behind."""
    resets_at: float | None = None
    """Unix seconds at which a quota is there again."""


def family_of(model: str | None) -> str:
    """Return the family of models whose limits *model* shares: `opus`, `sonnet`, `haiku`, or its own name."""
    if not model:
        return ANY_MODELS
    name = model.lower()
    for family in FAMILIES:
        if family in name:
            return family
    return name[:64]
