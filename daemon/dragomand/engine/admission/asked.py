"""What somebody wants to be let in for, and what they get: asked, blocked, permit."""

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import msgspec
from dragoman_protocol.limits import WaitReason
from dragoman_protocol.stream import Waiting

from dragomand.engine.errors import EngineError
from dragomand.policy.fair_queue import Priority

Kind = Literal["turn", "call"]

ANY_MODELS = "default"
"""The pool of what names no model."""


class Asked(msgspec.Struct, frozen=True, gc=False):
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
    project: str | None = None
    """The working directory."""
    tree: str | None = None
    """The orchestration that it is part of."""
    estimate_usd: float | None = None
    """What the turn may cost, where somebody knows."""
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
    refusal: EngineError | None = None
    """What who arrives now is told instead of waiting; who waits already waits on."""
    each_s: float | None = None
    """How many seconds more each one waits who stands behind."""
    resets_at: float | None = None
    """Unix seconds at which a quota is there again."""


class Reservation(Protocol):
    """Money put aside for a turn."""

    def settle(self, cost_usd: float | None) -> None:
        """Replace the estimate by what it cost; None: unknown. Called exactly once."""


class Spending(Protocol):
    """Decides whether a turn may be paid for; from memory, at once."""

    def refusal(self, asked: Asked) -> EngineError | None:
        """Return why it may not (`budget_exhausted`), without putting anything aside; None: it may."""

    def reserve(self, asked: Asked) -> Reservation | EngineError:
        """Put what it may cost aside, or say why not."""


def family_of(model: str | None) -> str:
    """Return the family of models whose limits *model* shares: `opus`, `sonnet`, `haiku`, or its own name."""
    if not model:
        return ANY_MODELS
    name = model.lower()
    for family in ("opus", "sonnet", "haiku"):
        if family in name:
            return family
    return name[:64]
