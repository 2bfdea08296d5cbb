"""The asyncio client's bytes: lost connections, silence, full sockets, questions, the end of the loop."""

import asyncio
import gc
import queue
import socket
import threading
from typing import Any

import dragoman.asynchronous
import pytest
from dragoman.aio import Client
from dragoman.errors import BusyError, ConnectionClosedError, NotRunningError
from dragoman_protocol.budget import BudgetRaiseParams, BudgetState
from dragoman_protocol.lifecycle import CancelParams, PermissionDecision, PermissionRequestParams
from dragoman_protocol.stream import TextDelta

ASKED = PermissionRequestParams(
    permission_id="p", session_id="s1", turn_id="t1", tool_name="Edit", input={"a": 1}
)
SPENT = BudgetRaiseParams(
    budget=BudgetState(scope="hour", limit_usd=10, spent_usd=10), needed_usd=0.5, expires_at=2e9
)


def leaving() -> socket.socket:
    """Return a connection to a daemon that is just leaving."""
    ours, theirs = socket.socketpair()
    ours.close()
    return theirs


async def test_a_daemon_that_was_leaving_is_told_again_by_its_successor(scripted: Any) -> None:
    opened = 0

    def opener() -> socket.socket:
        nonlocal opened
        opened += 1
        return leaving() if opened < 3 else scripted.open()

    async with Client(opener) as claude:
        assert (await claude.query("Hi")).text == "Hello"
    assert [method for method, _ in scripted.requests] == ["initialize", "query/run"]


async def test_a_call_and_a_fresh_start_at_once_make_one_connection(scripted: Any) -> None:
    """The daemon left while a call was on its way: both want to connect, and only one may."""
    opened: list[socket.socket] = []

    def opener() -> socket.socket:
        opened.append(scripted.open())
        return opened[-1]

    async with Client(opener) as claude:
        link = claude._link
        await link._opening.acquire()
        link._leave_transport()
        both = asyncio.gather(link.open(), link._again())
        await asyncio.sleep(0)  # both stand at the lock now
        link._opening.release()
        await both
        assert len(opened) == 2
        assert (await claude.query("Hi")).text == "Hello"


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (NotRunningError("none left"), NotRunningError),
        (OSError("none left"), (ConnectionClosedError, OSError)),
    ],
)
async def test_no_successor(failure: Exception, raised: Any) -> None:
    opened: list[socket.socket] = []

    def opener() -> socket.socket:
        if opened:
            raise failure
        opened.append(leaving())
        return opened[0]

    async with Client(opener) as claude:
        with pytest.raises(raised, match="none left"):
            await claude.query("Hi")


async def test_a_lost_connection_is_opened_again_by_the_next_call(scripted: Any) -> None:
    scripted.on("query/run", lambda connection, request, params: connection.close())
    async with Client(scripted.open) as claude:
        with pytest.raises(ConnectionClosedError):
            await claude.query("Hi")
        assert (await claude.limits_state()).max_running == 8
    assert len(scripted.connections) == 2


async def test_the_first_call_connects(scripted: Any) -> None:
    claude = Client(scripted.open)
    one, two = await asyncio.gather(claude.limits_state(), claude.limits_state())
    assert one == two
    await claude.close()
    assert len(scripted.connections) == 1


async def test_closing_what_never_opened() -> None:
    claude = Client(leaving)
    await claude.close()
    with pytest.raises(ConnectionClosedError):
        await claude.open()


async def test_closing_while_somebody_waits(scripted: Any) -> None:
    scripted.holds("query/run")
    claude = Client(scripted.open)
    task = asyncio.create_task(claude.query("Hi"))
    await asyncio.to_thread(scripted.wait_for_request, "query/run")
    await claude.close()
    with pytest.raises(ConnectionClosedError):
        await task


async def test_a_connection_that_comes_too_late_is_closed(scripted: Any) -> None:
    go_on = threading.Event()

    def opener() -> socket.socket:
        assert go_on.wait(20)
        return scripted.open()  # type: ignore[no-any-return]

    claude = Client(opener)
    task = asyncio.create_task(claude.open())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await asyncio.to_thread(
        scripted.wait_for, lambda: scripted.connections and scripted.connections[0].closed
    )


async def test_a_start_that_fails_too_late_is_nobodys(scripted: Any) -> None:
    go_on, failed = threading.Event(), threading.Event()

    def opener() -> socket.socket:
        assert go_on.wait(20)
        failed.set()
        raise NotRunningError("none")

    claude = Client(opener)
    task = asyncio.create_task(claude.open())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await asyncio.to_thread(failed.wait, 20)
    await claude.close()


async def test_a_frozen_daemon_is_given_up(scripted: Any) -> None:
    scripted.holds("initialize")
    scripted.holds("query/run")
    async with Client(scripted.open, quiet_s=0.05) as claude:
        with pytest.raises(BusyError, match="frozen"):
            await claude.query("Hi")


async def test_a_daemon_that_is_only_slow_is_waited_for(scripted: Any, play: Any) -> None:
    probed: list[Any] = []

    def probe(connection: Any, request: Any, params: dict[str, Any]) -> None:
        probed.append(request)
        connection.respond(request, {})
        if len(probed) == 3:
            (held,) = connection.peer.incoming.values()
            connection.respond(held, play.result("at last"))

    scripted.holds("query/run")
    scripted.on("daemon/status", probe)
    async with Client(scripted.open, quiet_s=0.3) as claude:
        assert (await claude.query("Hi")).text == "at last"
    assert len(probed) == 3


async def test_silence_is_nothing_to_who_waits_for_nothing(scripted: Any) -> None:
    async with Client(scripted.open, quiet_s=60) as claude:
        await claude.query("Hi")
        link = claude._link
        link._listened()  # the timer rings when nothing is waited for
        assert link._watch is None
        assert (await claude.query("Hi")).text == "Hello"
    assert not [method for method, _ in scripted.requests if method == "daemon/status"]


async def test_both_ways_full_at_once(scripted: Any, play: Any) -> None:
    size = 4 * 1024 * 1024

    def flood(connection: Any, request: Any, params: dict[str, Any]) -> None:
        for number in range(8):
            connection.progress(params, TextDelta(item_id="i", offset=number * size, text="x" * size))
        connection.respond(request, play.result())

    scripted.on("query/run", flood)
    async with Client(scripted.open) as claude:

        async def ask(prompt: str) -> int:
            return sum([len(text) async for text in claude.stream(prompt).texts()])

        assert tuple(await asyncio.gather(ask("Hi"), ask("y" * (2 * size)), ask("Hi"))) == (8 * size,) * 3


async def test_goodbye_to_a_daemon_that_does_not_read(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dragoman.asynchronous, "CLOSE_S", 0.05)
    go_on = threading.Event()
    scripted.on("query/run", lambda connection, request, params: go_on.wait(20))
    claude = Client(scripted.open)
    first = asyncio.create_task(claude.query("Hi"))
    await asyncio.to_thread(scripted.wait_for_request, "query/run")
    second = asyncio.create_task(claude.query("z" * 8_000_000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await claude.close()
    go_on.set()
    for task in (first, second):
        with pytest.raises(ConnectionClosedError):
            await task


async def test_bytes_that_are_no_messages(scripted: Any) -> None:
    def babble(connection: Any, request: Any, params: dict[str, Any]) -> None:
        connection.raw(b"x" * (17 * 1024 * 1024) + b"\n")
        connection.close()

    scripted.on("query/run", babble)
    async with Client(scripted.open) as claude:
        with pytest.raises(ConnectionClosedError):
            await claude.query("Hi")


async def test_a_refused_initialize_closes_the_connection(scripted: Any) -> None:
    scripted.fails("initialize", "too_many_clients")
    async with Client(scripted.open) as claude:
        with pytest.raises(dragoman.errors.TooManyClientsError):
            await claude.query("Hi")
        await asyncio.to_thread(scripted.wait_for, lambda: scripted.connections[0].closed)


def test_a_stream_that_outlives_its_loop_harms_nobody(scripted: Any) -> None:
    scripted.on("query/run", lambda connection, request, params: None)
    kept: list[Any] = []

    async def main() -> None:
        claude = Client(scripted.open)
        streaming = claude.stream("Hi")
        kept.append(streaming.__aiter__())
        task = asyncio.create_task(kept[0].__anext__())
        await asyncio.to_thread(scripted.wait_for_request, "query/run")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await claude.close()
        streaming._call.pending.answered = False  # type: ignore[union-attr]

    asyncio.run(main())
    kept.clear()
    gc.collect()
    assert scripted.requests[-1][0] == "query/run"


class TestPermissions:
    """Questions to the person."""

    def ask(self, scripted: Any, play: Any) -> list[Any]:
        answers: list[Any] = []

        def run(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(response: Any) -> None:
                answers.append(response)
                connection.respond(request, play.result(bytes(response.result).decode()))

            connection.ask("permission/request", ASKED, answered)

        scripted.on("query/run", run)
        return answers

    async def test_a_plain_function(self, scripted: Any, play: Any) -> None:
        self.ask(scripted, play)
        async with Client(scripted.open, on_permission=lambda asked: asked == ASKED) as claude:
            assert (await claude.query("Hi")).text == '{"decision":"allow"}'

    async def test_a_coroutine_function_that_makes_calls_itself(self, scripted: Any, play: Any) -> None:
        self.ask(scripted, play)

        async def decide(asked: PermissionRequestParams) -> PermissionDecision:
            await claude.limits_state()
            return PermissionDecision(decision="deny", message="no")

        async with Client(scripted.open, on_permission=decide) as claude:
            assert (await claude.query("Hi")).text == '{"decision":"deny","message":"no"}'

    async def test_a_callable_that_fails_denies_and_the_loop_is_told(self, scripted: Any, play: Any) -> None:
        answers = self.ask(scripted, play)
        heard: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))

        def fail(asked: PermissionRequestParams) -> bool:
            raise ZeroDivisionError

        async with Client(scripted.open, on_permission=fail) as claude:
            await claude.query("Hi")
        assert b'"deny"' in bytes(answers[0].result)
        assert [type(context["exception"]) for context in heard] == [ZeroDivisionError]

    async def test_one_that_is_withdrawn_stops_asking(self, scripted: Any, play: Any) -> None:
        answers: list[Any] = []
        asking = asyncio.Event()
        stopped = asyncio.Event()
        withdraw: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def run(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(response: Any) -> None:
                answers.append(response)
                connection.respond(request, play.result())

            asked = connection.ask("permission/request", ASKED, answered)
            withdraw.put(lambda: connection.notify("$/cancelRequest", CancelParams(id=asked)))

        async def decide(asked: PermissionRequestParams) -> bool:
            asking.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return True

        scripted.on("query/run", run)
        async with Client(scripted.open, on_permission=decide) as claude:
            task = asyncio.create_task(claude.query("Hi"))
            await asyncio.wait_for(asking.wait(), 20)
            (await asyncio.to_thread(withdraw.get, timeout=20))()
            await asyncio.wait_for(stopped.wait(), 20)
            assert (await task).text == "Hello"
        (answer,) = answers
        assert answer.error.kind == "request_cancelled"

    async def test_closing_ends_the_asking(self, scripted: Any, play: Any) -> None:
        self.ask(scripted, play)
        asking, stopped = asyncio.Event(), asyncio.Event()

        async def decide(asked: PermissionRequestParams) -> bool:
            asking.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return True

        claude = Client(scripted.open, on_permission=decide)
        task = asyncio.create_task(claude.query("Hi"))
        await asyncio.wait_for(asking.wait(), 20)
        await claude.close()
        assert stopped.is_set()
        with pytest.raises(ConnectionClosedError):
            await task


class TestMoney:
    """`on_budget`: as `on_permission`, with a question and an answer of its own."""

    def ask(self, scripted: Any, play: Any) -> list[Any]:
        """Ask in each query, whose text is then how it was answered."""
        answers: list[Any] = []

        def run(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(response: Any) -> None:
                answers.append(response)
                text = response.error.kind if response.error else bytes(response.result).decode()
                connection.respond(request, play.result(text))

            connection.ask("budget/raise", SPENT, answered)

        scripted.on("query/run", run)
        return answers

    async def test_a_plain_function(self, scripted: Any, play: Any) -> None:
        self.ask(scripted, play)
        async with Client(scripted.open, on_budget=lambda asked: 20 if asked == SPENT else None) as claude:
            assert (await claude.query("Hi")).text == '{"limitUsd":20.0}'
        assert scripted.requests[0][1]["capabilities"] == {"budget": True}

    async def test_a_coroutine_function_that_makes_calls_itself(self, scripted: Any, play: Any) -> None:
        self.ask(scripted, play)

        async def decide(asked: BudgetRaiseParams) -> None:
            await claude.limits_state()

        async with Client(scripted.open, on_permission=lambda asked: True, on_budget=decide) as claude:
            assert (await claude.query("Hi")).text == "{}"

    async def test_it_is_not_answered_by_who_answers_permissions(self, scripted: Any, play: Any) -> None:
        self.ask(scripted, play)
        async with Client(scripted.open, on_permission=lambda asked: True) as claude:
            assert (await claude.query("Hi")).text == "method_not_found"

    async def test_a_callable_that_fails_says_no_and_the_loop_is_told(self, scripted: Any, play: Any) -> None:
        self.ask(scripted, play)
        heard: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))
        nonsense: Any = lambda asked: "20"  # noqa: E731
        async with Client(scripted.open, on_budget=nonsense) as claude:
            assert (await claude.query("Hi")).text == "{}"
        (context,) = heard
        assert isinstance(context["exception"], TypeError)
        assert context["message"] == "on_budget failed; the cap was not raised"

    async def test_one_that_is_withdrawn_stops_asking(self, scripted: Any, play: Any) -> None:
        asking, stopped = asyncio.Event(), asyncio.Event()
        withdraw: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def run(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(response: Any) -> None:
                connection.respond(request, play.result(response.error.kind))

            asked = connection.ask("budget/raise", SPENT, answered)
            withdraw.put(lambda: connection.notify("$/cancelRequest", CancelParams(id=asked)))

        async def decide(asked: BudgetRaiseParams) -> float:
            asking.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            return 20

        scripted.on("query/run", run)
        async with Client(scripted.open, on_budget=decide) as claude:
            task = asyncio.create_task(claude.query("Hi"))
            await asyncio.wait_for(asking.wait(), 20)
            (await asyncio.to_thread(withdraw.get, timeout=20))()
            await asyncio.wait_for(stopped.wait(), 20)
            assert (await task).text == "request_cancelled"
