"""The asyncio client against real sockets; what moves the bytes is in test_asynchronous.py."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import dragoman.aio
import pytest
from dragoman import aio
from dragoman.aio import Client
from dragoman.errors import (
    AnswerError,
    ConnectionClosedError,
    DrainingError,
    NotRunningError,
    QuotaExhaustedError,
    RequestCancelledError,
    RequestTimeoutError,
)
from dragoman_protocol.stream import AssistantText, TextDelta, TurnStarted

TEXTS = ["Hel", "lo"]


@pytest.fixture
async def claude(scripted: Any) -> AsyncIterator[Client]:
    claude = Client(scripted.open, client_name="tester")
    await claude.open()
    yield claude
    await claude.close()


async def until(scripted: Any, happened: Any) -> None:
    """Wait for the scripted daemon without holding up the loop."""
    await asyncio.to_thread(scripted.wait_for, happened)


async def told(scripted: Any, method: str) -> None:
    await asyncio.to_thread(scripted.wait_for_told, method)


def begin(connection: Any, request: Any, params: dict[str, Any]) -> None:
    """Begin to answer, and go on for ever."""
    if "partialResultToken" in params:
        connection.progress(params, TurnStarted(turn_id="t1"), 1)
        connection.progress(params, TextDelta(item_id="i1", offset=0, text="Half"))


async def test_a_query(claude: Client, scripted: Any) -> None:
    answer = await claude.query("Hi", model="haiku", cwd="/", timeout_s=3)
    assert (answer.text, answer.session_id) == ("Hello", "s1")
    assert [method for method, _ in scripted.requests] == ["initialize", "query/run"]
    assert scripted.requests[1][1] == {"prompt": "Hi", "model": "haiku", "cwd": "/", "timeoutMs": 3000}


async def test_every_other_method(claude: Client) -> None:
    assert (await claude.server()).server_info.name == "scripted"
    assert (await claude.limits_state()).max_running == 8
    assert (await claude.server()).connection_id == "c1"


async def test_a_stream(claude: Client) -> None:
    streaming = claude.stream("Hi")
    assert [type(event) async for event in streaming] == [TurnStarted, TextDelta, TextDelta, AssistantText]
    assert (await streaming.result()).text == "Hello"
    assert streaming.last is not None
    assert (streaming.last.session_id, streaming.last.seq, streaming.last.cursor) == ("s1", 2, "c2")
    assert [text async for text in claude.stream("Hi").texts()] == TEXTS
    assert (await claude.stream("Hi").result()).text == "Hello"


async def test_many_at_once(claude: Client, scripted: Any, play: Any) -> None:
    held: list[Any] = []

    def hold(connection: Any, request: Any, params: dict[str, Any]) -> None:
        held.append((request, params))
        if len(held) == 50:
            for request, params in reversed(held):
                connection.respond(request, play.result(params["prompt"]))

    scripted.on("query/run", hold)
    answers = await asyncio.gather(*(claude.query(str(number)) for number in range(50)))
    assert [answer.text for answer in answers] == [str(number) for number in range(50)]


async def test_leaving_the_loop_early_cancels_the_turn(claude: Client, scripted: Any) -> None:
    scripted.on("query/run", begin)
    streaming = claude.stream("Hi")
    async for _ in streaming:
        break
    await told(scripted, "$/cancelRequest")
    with pytest.raises(RequestCancelledError):
        await streaming.result()


async def test_a_stream_that_never_began_is_nothing_to_leave(claude: Client, scripted: Any) -> None:
    streaming = claude.stream("Hi")
    iterator = streaming.__aiter__()
    assert iterator.__aiter__() is iterator
    del iterator
    assert (await claude.limits_state()).running == 0
    assert [method for method, _ in scripted.requests] == ["initialize", "limits/state"]


async def test_cancelling_ends_the_loop(claude: Client, scripted: Any) -> None:
    scripted.on("query/run", begin)
    streaming = claude.stream("Hi")
    seen = 0
    async for event in streaming:
        seen += 1
        if isinstance(event, TextDelta):
            await streaming.cancel()
    assert seen == 2
    with pytest.raises(RequestCancelledError):
        await streaming.result()


async def test_a_stream_as_a_context_is_cancelled_at_its_end(claude: Client, scripted: Any) -> None:
    scripted.on("query/run", begin)
    async with claude.stream("Hi") as streaming:
        assert await streaming.next_event()
    with pytest.raises(RequestCancelledError):
        await streaming.result()
    scripted.on("query/run", lambda connection, request, params: connection.respond(request, {}))
    async with claude.stream("Hi") as streaming:
        assert [event async for event in streaming] == []


async def test_a_turn_that_does_not_stop_is_not_waited_for_forever(
    claude: Client, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "CANCEL_S", 0.05)
    scripted.cancels = False
    scripted.holds("query/run")
    await claude.stream("Hi").cancel()
    await told(scripted, "$/cancelRequest")


async def test_a_turn_that_fails_raises_at_the_end_of_the_loop(claude: Client, scripted: Any) -> None:
    scripted.fails("query/run", "quota_exhausted")
    with pytest.raises(QuotaExhaustedError):
        _ = [event async for event in claude.stream("Hi")]


async def test_an_answer_that_does_not_fit(claude: Client, scripted: Any) -> None:
    scripted.answers("query/run", {"text": 1})
    with pytest.raises(AnswerError):
        await claude.query("Hi")


async def test_no_answer_in_time_cancels_the_request(claude: Client, scripted: Any) -> None:
    scripted.holds("query/run")
    with pytest.raises(RequestTimeoutError, match="query/run"):
        await claude.query_run("Hi", timeout_s=0.05)
    await told(scripted, "$/cancelRequest")
    assert (await claude.limits_state(timeout_s=20)).max_running == 8


async def test_cancelling_the_task_cancels_the_request(claude: Client, scripted: Any) -> None:
    scripted.holds("query/run")
    task = asyncio.create_task(claude.query("Hi"))
    await asyncio.to_thread(scripted.wait_for_request, "query/run")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await told(scripted, "$/cancelRequest")
    assert ("$/cancelRequest", {"id": 2}) in scripted.told


async def test_the_callers_own_time_limit_is_not_taken_for_ours(claude: Client, scripted: Any) -> None:
    scripted.holds("query/run")
    with pytest.raises(TimeoutError) as late:
        async with asyncio.timeout(0.05):
            await claude.query_run("Hi", timeout_s=60)
    assert not isinstance(late.value, RequestTimeoutError)
    await told(scripted, "$/cancelRequest")


async def test_inside_anyio(scripted: Any) -> None:
    """Task groups and cancel scopes of anyio, on its asyncio backend."""
    texts: list[str] = []
    async with Client(scripted.open) as claude:

        async def ask() -> None:
            texts.append((await claude.query("Hi")).text)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
        scripted.holds("query/run")
        with anyio.move_on_after(0.05) as scope:
            await claude.query("Hi")
        assert scope.cancelled_caught
        await told(scripted, "$/cancelRequest")
    assert texts == ["Hello"] * 5


async def test_a_client_that_was_closed(claude: Client) -> None:
    await claude.query("Hi")
    await claude.close()
    await claude.close()
    with pytest.raises(ConnectionClosedError, match="closed"):
        await claude.query("Hi")


def drain_first(play: Any, count: int) -> Any:
    """Turn the first *count* requests away, as a daemon does that is stopping."""
    seen: list[Any] = []

    def script(connection: Any, request: Any, params: dict[str, Any]) -> None:
        seen.append(request)
        if len(seen) <= count:
            connection.fail(request, "draining")
        else:
            play.answer(connection, request, params)

    return script


async def test_a_draining_daemon_is_left_for_its_successor(claude: Client, scripted: Any, play: Any) -> None:
    scripted.on("query/run", drain_first(play, 2))
    assert (await claude.query("Hi")).text == "Hello"
    scripted.on("query/run", drain_first(play, 2))
    assert [text async for text in claude.stream("Hi").texts()] == TEXTS
    assert len(scripted.connections) == 5


async def test_a_daemon_that_drains_for_ever(claude: Client, scripted: Any) -> None:
    scripted.fails("query/run", "draining")
    with pytest.raises(DrainingError):
        await claude.query("Hi")
    with pytest.raises(DrainingError):
        await claude.stream("Hi").result()


async def test_a_draining_daemon_is_not_left_while_something_runs_there(
    claude: Client, scripted: Any
) -> None:
    scripted.on("query/run", begin)
    running = claude.stream("Hi")
    assert await running.next_event()
    scripted.fails("query/run", "draining")
    with pytest.raises(DrainingError):
        await claude.query("Hi")
    await running.cancel()
    assert len(scripted.connections) == 1


async def test_connecting_to_the_daemon_that_runs(scripted: Any, place: Any) -> None:
    scripted.listen(place.paths.socket)
    async with dragoman.aio.connect("me", start=False, env=place.env) as claude:
        assert (await claude.query("Hi")).text == "Hello"
    async with dragoman.aio.connect("me", env=place.env) as claude:
        assert (await claude.query("Hi")).text == "Hello"


async def test_no_daemon(place: Any) -> None:
    with pytest.raises(NotRunningError):
        await dragoman.aio.connect(start=False, env=place.env).open()


class TestWatching:
    """`events`: what happens in a session, whoever works in it."""

    @pytest.fixture
    def session(self, scripted: Any, play: Any) -> Any:
        return play.Session(scripted)

    async def test_from_the_beginning_and_live(self, claude: Client, session: Any) -> None:
        session.happens(3)
        events = claude.events("s1")
        seen = []
        async for event in events:
            seen.append(event.text)  # type: ignore[union-attr]
            if len(seen) == 3:
                session.happens(2)
            if len(seen) == 5:
                break
        assert seen == ["1", "2", "3", "4", "5"]
        assert events.last is not None
        assert events.last.seq == 5
        await asyncio.to_thread(session.daemon.wait_for_request, "stream/detach", 2)

    async def test_a_reader_that_was_too_slow_goes_on_where_it_was(
        self, claude: Client, session: Any
    ) -> None:
        session.happens(2)
        watching = claude.events("s1")
        assert (await watching.next_event()).text == "1"  # type: ignore[union-attr]
        session.drops()
        session.happens(1)
        assert [(await watching.next_event()).text for _ in range(2)] == ["2", "3"]  # type: ignore[union-attr]
        assert session.cursors == [None, "2"]

    async def test_a_lost_connection_raises_and_can_be_gone_on_from(
        self, claude: Client, session: Any
    ) -> None:
        session.happens(1)
        events = claude.events("s1", None)
        await events.next_event()
        session.connection.close()
        with pytest.raises(ConnectionClosedError):
            await events.next_event()
        session.happens(1)
        assert (await events.next_event()).text == "2"  # type: ignore[union-attr]
        assert session.cursors == [None, "1"]

    async def test_leaving_after_the_end_of_the_connection(self, claude: Client, session: Any) -> None:
        session.happens(1)
        events = claude.events("s1")
        await events.next_event()
        await claude.close()
        events.leave()
        await asyncio.sleep(0)
        assert claude._link.conversation.failed is not None
