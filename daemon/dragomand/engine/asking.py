"""What a turn asks the door for."""

from collections.abc import Callable

from dragoman_protocol.limits import LimitsWaitingParams
from dragoman_protocol.query import TurnOptions
from dragoman_protocol.stream import Event

from dragomand.policy.fair_queue import Priority
from dragomand.store.rows import SessionRow

from .admission import Asked, Permit, Told, WaitingSink, family_of
from .admission.asked import Reservation
from .caller import Caller
from .spend import Payment, Spend


def turn_asked(
    caller: Caller,
    session: SessionRow,
    turn_id: str,
    model: str | None,
    credential: str,
    timeout_s: float | None,
    parent: str | None,
    priority: Priority = "interactive",
    reserve: Callable[[], Reservation] | None = None,
) -> Asked:
    """Return it, for a turn of *caller*'s in *session*; *model*: as chosen, None for the session's own.

    *parent*: the turn that waits for this one. *reserve* puts its money aside in the instant in which it is
    let in.
    """
    return Asked(
        client=caller.id,
        name=caller.name,
        priority=priority,
        timeout_s=timeout_s,
        credential=credential,
        models=family_of(model or session.model),
        session_id=session.session_id,
        turn_id=turn_id,
        parent=parent,
        reserve=reserve,
    )


def payment_of(
    caller: Caller, session: SessionRow, upstream: str, chosen: TurnOptions, tree_id: str | None = None
) -> Payment:
    """Return whose money a turn of *caller*'s in *session* spends; *tree_id*: of the turn above."""
    return Payment(
        client=caller.name or "unnamed",
        upstream=upstream,
        model=chosen.model or session.model,
        project=session.cwd,
        session_id=session.session_id,
        tree_id=caller.tree_id or tree_id,
        most_usd=chosen.max_budget_usd,
    )


def telling(
    caller: Caller,
    session_id: str,
    turn_id: str | None,
    publish: Callable[[Event], None],
    wall: Callable[[], float],
) -> WaitingSink:
    """Return what tells a wait to whoever watches the turn (*publish*), and to a *caller* that wants it."""

    def tell(told: Told) -> None:
        event = told.event(wall())
        publish(event)
        if caller.on_waiting is not None:
            caller.on_waiting(
                LimitsWaitingParams(
                    session_id=session_id,
                    turn_id=turn_id,
                    reason=told.reason,
                    text=told.text,
                    position=told.position,
                    expected_at=event.expected_at,
                )
            )

    return tell


def spend_of(permit: Permit) -> Spend | None:
    """Return the money that was put aside when *permit* was given."""
    return permit.reservation if isinstance(permit.reservation, Spend) else None
