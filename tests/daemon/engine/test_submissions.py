"""One query on its way: who hears of its session, how it ends, what one who leaves is told."""

import asyncio
import contextlib
from typing import Any

import pytest
from dragoman_protocol.query import QueryRunParams
from dragomand.engine.errors import EngineError
from dragomand.engine.submissions import Submission


def submission(kit: Any) -> Submission:
    return Submission(params=QueryRunParams(prompt="hi"), caller=kit.caller(), digest="d")


async def test_everybody_hears_the_session_once(kit: Any) -> None:
    one, heard = submission(kit), []
    one.hear(lambda session_id: heard.append(("early", session_id)))
    assert heard == []
    one.in_session("s")
    one.hear(lambda session_id: heard.append(("late", session_id)))
    assert heard == [("early", "s"), ("late", "s")]


@pytest.mark.parametrize(
    ("reasons", "kind"),
    [
        (["client"], "request_cancelled"),
        (["shutdown"], "draining"),
        (["shutdown", "client"], "draining"),
        ([], "draining"),
    ],
)
async def test_stopped_before_its_turn(kit: Any, reasons: list[Any], kind: str) -> None:
    one = submission(kit)
    one.in_session("s")

    async def carry_out() -> None:
        one.task = asyncio.current_task()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        one.end()

    task = asyncio.create_task(carry_out())
    await asyncio.sleep(0)
    for reason in reasons:
        one.stop(reason)
    if not reasons:
        one.end()
        task.cancel()
    await asyncio.wait([task])
    assert one.done.is_set()
    assert one.error is not None
    assert one.error.kind == kind
    assert one.error.data == ({"session_id": "s"} if kind == "request_cancelled" else {})
    assert one.cancelled() is one.error


async def test_an_error_of_its_own_stays(kit: Any) -> None:
    one = submission(kit)
    one.error = EngineError("queue_full")
    one.end()
    assert one.error.kind == "queue_full"


async def test_one_who_leaves_before_anything_is_known(kit: Any) -> None:
    error = submission(kit).cancelled()
    assert (error.kind, error.facts()) == (
        "request_cancelled",
        {"kind": "request_cancelled", "message": "request_cancelled"},
    )


class Channel:
    """Counts its subscribers."""

    def __init__(self) -> None:
        self.subscribers: list[Any] = []

    def subscribe(self, subscriber: Any) -> Any:
        self.subscribers.append(subscriber)
        return lambda: self.subscribers.remove(subscriber)


@pytest.mark.parametrize("watched_first", [True, False])
async def test_the_channel_has_a_subscriber_only_while_somebody_watches(
    kit: Any, watched_first: bool
) -> None:
    one, channel, seen = submission(kit), Channel(), []
    if watched_first:
        one.watch(seen.append)
    one.in_channel(channel)  # type: ignore[arg-type]
    assert len(channel.subscribers) == watched_first
    if not watched_first:
        one.watch(seen.append)
    other: list[Any] = []
    one.watch(other.append)
    assert len(channel.subscribers) == 1
    channel.subscribers[0]("event")
    assert (seen, other) == (["event"], ["event"])
    one.unwatch(seen.append)
    assert len(channel.subscribers) == 1
    one.unwatch(other.append)
    assert channel.subscribers == []
    one.watch(seen.append)
    one.out_of_channel()
    assert channel.subscribers == []
    one.unwatch(seen.append)
