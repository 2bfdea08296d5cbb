"""The blocking client's bytes: threads, interruptions, lost connections, full sockets, questions."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from dragoman import blocking
from dragoman.errors import (
    BusyError,
    ConnectionClosedError,
    NotRunningError,
    RequestCancelledError,
    RequestError,
    RequestTimeoutError,
    SessionBusyError,
)
from dragoman.sync import Client
from dragoman_protocol.budget import BudgetRaiseParams, BudgetRaiseResult, BudgetState
from dragoman_protocol.codec import MAX_MESSAGE
from dragoman_protocol.lifecycle import CancelParams, PermissionDecision, PermissionRequestParams
from dragoman_protocol.stream import TextDelta

ASKED = PermissionRequestParams(
    permission_id="p", session_id="s1", turn_id="t1", tool_name="Edit", input={"a": 1}
)
SPENT = BudgetRaiseParams(
    budget=BudgetState(scope="hour", limit_usd=10, spent_usd=10), needed_usd=0.5, expires_at=2e9
)
PATIENCE_S = 20


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start *call* in a thread; its result or exception will be in the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as failed:
            outcome.append(failed)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_who_waits_reads_for_all(scripted: Any, play: Any) -> None:
    """Answers in the opposite order of the questions, of many threads on one connection."""
    held: list[Any] = []
    count = 12

    def hold(connection: Any, request: Any, params: dict[str, Any]) -> None:
        held.append((request, params))
        if len(held) == count:
            for request, params in reversed(held):
                connection.respond(request, play.result(params["prompt"]))

    scripted.on("query/run", hold)
    with Client(scripted.open) as claude:
        asking = [in_thread(partial(claude.query, f"{number}")) for number in range(count)]
        for number, (thread, outcome) in enumerate(asking):
            thread.join(PATIENCE_S)
            assert [answer.text for answer in outcome] == [f"{number}"]


def test_what_cannot_be_said_leaves_the_connection_usable(scripted: Any, play: Any) -> None:
    scripted.on(
        "query/run", lambda connection, request, params: connection.respond(request, play.result("yes"))
    )
    with Client(scripted.open) as claude:
        for prompt in ("x" * MAX_MESSAGE, "caf\udce9"):
            with pytest.raises(RequestError):
                claude.query(prompt)
            assert claude.query("x").text == "yes"
    assert len(scripted.connections) == 1


def test_a_deadline_of_one_thread_while_another_reads(scripted: Any) -> None:
    scripted.holds("query/run")
    with Client(scripted.open) as claude:
        patient, outcome = in_thread(lambda: claude.query("patient"))
        scripted.wait_for_request("query/run")
        with pytest.raises(RequestTimeoutError):
            claude.query_run("hasty", timeout_s=0.05)
        scripted.wait_for_told("$/cancelRequest")
        claude.close()
        patient.join(PATIENCE_S)
    (failed,) = outcome
    assert isinstance(failed, ConnectionClosedError)


def test_closing_while_another_thread_waits(scripted: Any) -> None:
    scripted.holds("query/run")
    claude = Client(scripted.open)
    thread, outcome = in_thread(lambda: claude.query("Hi"))
    scripted.wait_for_request("query/run")
    claude.close()
    thread.join(PATIENCE_S)
    assert isinstance(outcome[0], ConnectionClosedError)
    scripted.wait_for(lambda: scripted.connections[0].closed)


def test_closing_in_the_moment_in_which_a_wait_ends(scripted: Any) -> None:
    scripted.holds("query/run")
    claude = Client(scripted.open)
    link = claude._link
    exchange = link._exchange

    def exchange_and_close(deadline: float | None) -> None:
        exchange(deadline)
        claude.close()

    link._exchange = exchange_and_close  # type: ignore[method-assign]
    with pytest.raises(ConnectionClosedError):
        claude.query("Hi")
    scripted.wait_for(lambda: scripted.connections[0].closed)


def test_a_daemon_that_was_leaving_is_told_again_by_its_successor(scripted: Any) -> None:
    opened: list[socket.socket] = []

    def opener() -> socket.socket:
        if len(opened) < 2:
            ours, theirs = socket.socketpair()
            ours.close()
            opened.append(theirs)
            return theirs
        return scripted.open()  # type: ignore[no-any-return]

    with Client(opener) as claude:
        assert claude.query("Hi").text == "Hello"
    assert [method for method, _ in scripted.requests] == ["initialize", "query/run"]


def test_no_successor(scripted: Any) -> None:
    opened: list[socket.socket] = []

    def opener() -> socket.socket:
        if opened:
            raise NotRunningError("none left")
        ours, theirs = socket.socketpair()
        ours.close()
        opened.append(theirs)
        return theirs

    with Client(opener) as claude, pytest.raises(NotRunningError, match="none left"):
        claude.query("Hi")


def test_a_lost_connection_is_opened_again_by_the_next_call(scripted: Any) -> None:
    scripted.on("query/run", lambda connection, request, params: connection.close())
    with Client(scripted.open) as claude:
        with pytest.raises(ConnectionClosedError) as lost:
            claude.query("Hi")
        assert lost.value.retryable
        assert claude.limits_state().max_running == 8
    assert len(scripted.connections) == 2


def test_an_interruption_between_bytes_and_sense_closes_the_connection(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(scripted.open) as claude:
        claude.query("Hi")
        scripted.holds("query/run")
        talk = claude._link.conversation

        def interrupt(data: bytes) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(talk, "receive", interrupt)
        with pytest.raises(KeyboardInterrupt):
            claude.limits_state()
        scripted.wait_for(lambda: scripted.connections[0].closed)
        assert claude.limits_state().max_running == 8


def test_an_interruption_while_saying_something_closes_the_connection(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whoever reads on it, too."""
    scripted.holds("query/run")
    with Client(scripted.open) as claude:
        thread, outcome = in_thread(lambda: claude.query("Hi"))
        scripted.wait_for_request("query/run")

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(claude._link.conversation, "call", interrupt)
            with pytest.raises(KeyboardInterrupt):
                claude.limits_state()
        thread.join(PATIENCE_S)
        assert isinstance(outcome[0], ConnectionClosedError)
        assert claude.limits_state().max_running == 8


def test_a_reset_connection_is_a_lost_one(scripted: Any) -> None:
    """The daemon closes with bytes unread: what comes is an error, not an end."""

    ours, theirs = socket.socketpair()
    with Client(lambda: theirs) as claude:
        first = claude.stream("Hi")
        assert ours.recv(65536)
        ours.sendall(b'{"jsonrpc":"2.0","id":1,"result":{}}\n')
        claude.stream("More, which nobody reads")
        ours.close()
        with pytest.raises(ConnectionClosedError):
            _ = first.result


def test_a_signal_reaches_a_waiting_main_thread(scripted: Any) -> None:
    """Python's own handler runs while the client waits, and the wait goes on."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))

    def ring(connection: Any, request: Any, params: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        connection.fail(request, "session_busy")

    scripted.on("query/run", ring)
    try:
        with Client(scripted.open) as claude, pytest.raises(SessionBusyError):
            claude.query("Hi")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]
    assert signal.set_wakeup_fd(-1) == -1


def test_who_wants_the_bytes_of_signals_keeps_them(scripted: Any) -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        try:
            with Client(scripted.open) as claude:
                claude.query("Hi")
        finally:
            assert signal.set_wakeup_fd(-1) == writer.fileno()


def test_a_turn_that_does_not_stop_is_not_waited_for_forever(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "CANCEL_S", 0.05)
    scripted.cancels = False
    scripted.holds("query/run")
    with Client(scripted.open) as claude:
        streaming = claude.stream("Hi")
        streaming.cancel()
        scripted.wait_for_told("$/cancelRequest")
        assert claude.limits_state().max_running == 8


def test_a_frozen_daemon_is_given_up(scripted: Any) -> None:
    scripted.holds("initialize")
    scripted.holds("query/run")
    with Client(scripted.open, quiet_s=0.05) as claude, pytest.raises(BusyError, match="frozen"):
        claude.query("Hi")


def test_a_daemon_that_is_only_slow_is_waited_for(scripted: Any, play: Any) -> None:
    probed: list[Any] = []
    status = scripted.scripts.get("daemon/status", play._unscripted)

    def probe(connection: Any, request: Any, params: dict[str, Any]) -> None:
        probed.append(request)
        status(connection, request, params)
        if len(probed) == 3:
            (held,) = [each for each in connection.peer.incoming.values() if each.method == "query/run"]
            connection.respond(held, play.result("at last"))

    scripted.holds("query/run")
    scripted.on("daemon/status", probe)
    with Client(scripted.open, quiet_s=0.3) as claude:
        assert claude.query("Hi").text == "at last"
    assert len(probed) == 3


def test_both_ways_full_at_once(scripted: Any, play: Any) -> None:
    """A daemon that reads no more until it is read, and a client that has much to say."""
    size = 4 * 1024 * 1024

    def flood(connection: Any, request: Any, params: dict[str, Any]) -> None:
        for number in range(8):
            connection.progress(params, TextDelta(item_id="i", offset=number * size, text="x" * size))
        connection.respond(request, play.result())

    scripted.on("query/run", flood)
    with Client(scripted.open) as claude:
        first = claude.stream("Hi")
        second = claude.stream("y" * (2 * size))
        assert sum(map(len, second.texts())) == 8 * size
        assert sum(map(len, first.texts())) == 8 * size


def test_much_to_say_while_another_thread_reads(scripted: Any, play: Any) -> None:
    scripted.holds("query/run")
    with Client(scripted.open) as claude:
        waiting = claude.stream("Hi")
        thread, outcome = in_thread(lambda: waiting.result)
        scripted.wait_for_request("query/run")
        seen: list[int] = []

        def measure(connection: Any, request: Any, params: dict[str, Any]) -> None:
            seen.append(len(params["prompt"]))
            connection.respond(request, play.result())

        scripted.on("query/run", measure)
        assert claude.query("z" * 8_000_000).text == "Hello"
        assert seen == [8_000_000]
        waiting.cancel()
        thread.join(PATIENCE_S)
    assert isinstance(outcome[0], RequestCancelledError)


class TestPermissions:
    """Questions to the person."""

    def ask(self, scripted: Any, play: Any) -> list[Any]:
        """Let the turn ask whether a tool may run, and answer what was said."""
        answers: list[Any] = []

        def run(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(response: Any) -> None:
                answers.append(response)
                connection.respond(request, play.result(bytes(response.result).decode()))

            connection.ask("permission/request", ASKED, answered)

        scripted.on("query/run", run)
        return answers

    @pytest.mark.parametrize(
        ("word", "said"),
        [
            (True, '{"decision":"allow"}'),
            (False, '{"decision":"deny"}'),
            (
                PermissionDecision(decision="allow", updated_input={"a": 2}),
                '{"decision":"allow","updatedInput":{"a":2}}',
            ),
        ],
    )
    def test_the_word_is_passed_on(self, scripted: Any, play: Any, word: Any, said: str) -> None:
        self.ask(scripted, play)
        asked: list[Any] = []

        def decide(question: PermissionRequestParams) -> Any:
            asked.append(question)
            return word

        with Client(scripted.open, on_permission=decide) as claude:
            assert claude.query("Hi").text == said
        assert asked == [ASKED]
        assert scripted.requests[0][1]["capabilities"] == {"permissions": True}

    def test_the_callable_may_make_calls_itself(self, scripted: Any, play: Any) -> None:
        self.ask(scripted, play)
        with Client(scripted.open, on_permission=lambda asked: claude.limits_state().running == 0) as claude:
            assert claude.query("Hi").text == '{"decision":"allow"}'

    def test_a_callable_that_fails_denies_and_its_exception_comes_out(self, scripted: Any, play: Any) -> None:
        answers = self.ask(scripted, play)

        def fail(asked: PermissionRequestParams) -> bool:
            raise ZeroDivisionError

        with Client(scripted.open, on_permission=fail) as claude, pytest.raises(ZeroDivisionError):
            claude.query("Hi")
        assert b'"deny"' in bytes(answers[0].result)
        answers.clear()
        with Client(scripted.open, on_permission=fail) as claude, pytest.raises(ZeroDivisionError):
            list(claude.stream("Hi"))
        assert len(answers) == 1

    def test_nonsense_denies(self, scripted: Any, play: Any) -> None:
        answers = self.ask(scripted, play)
        nonsense: Any = lambda asked: "yes"  # noqa: E731
        with (
            Client(scripted.open, on_permission=nonsense) as claude,
            pytest.raises(TypeError, match="True, False"),
        ):
            claude.query("Hi")
        assert b'"deny"' in bytes(answers[0].result)

    def test_one_that_was_withdrawn_meanwhile_is_not_answered_twice(self, scripted: Any, play: Any) -> None:
        answers: list[Any] = []

        def run(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(response: Any) -> None:
                answers.append(response)
                connection.respond(request, play.result())

            asking = connection.ask("permission/request", ASKED, answered)
            connection.notify("$/cancelRequest", CancelParams(id=asking))

        scripted.on("query/run", run)
        with Client(scripted.open, on_permission=lambda asked: True) as claude:
            assert claude.query("Hi").text == "Hello"
        assert len(answers) == 1
        assert answers[0].error is None or answers[0].error.kind == "request_cancelled"


class TestMoney:
    """`on_budget`: as `on_permission`, with a question and an answer of its own."""

    def ask(self, scripted: Any, play: Any, method: str = "budget/raise", question: Any = SPENT) -> list[Any]:
        """Ask *question* in each query, whose text is then how it was answered."""
        answers: list[Any] = []

        def run(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(response: Any) -> None:
                answers.append(response)
                text = response.error.kind if response.error else bytes(response.result).decode()
                connection.respond(request, play.result(text))

            connection.ask(method, question, answered)

        scripted.on("query/run", run)
        return answers

    @pytest.mark.parametrize(
        ("word", "said"),
        [
            (None, "{}"),
            (20, '{"limitUsd":20.0}'),
            (12.5, '{"limitUsd":12.5}'),
            (BudgetRaiseResult(limit_usd=30), '{"limitUsd":30.0}'),
        ],
    )
    def test_the_word_is_passed_on(self, scripted: Any, play: Any, word: Any, said: str) -> None:
        self.ask(scripted, play)
        asked: list[Any] = []

        def decide(question: BudgetRaiseParams) -> Any:
            asked.append(question)
            return word

        with Client(scripted.open, on_budget=decide) as claude:
            assert claude.query("Hi").text == said
        assert asked == [SPENT]
        assert scripted.requests[0][1]["capabilities"] == {"budget": True}

    @pytest.mark.parametrize(
        ("method", "question", "mine", "other"),
        [
            ("budget/raise", SPENT, "on_permission", "on_budget"),
            ("permission/request", ASKED, "on_budget", "on_permission"),
        ],
    )
    def test_each_answers_its_own_question(
        self, scripted: Any, play: Any, method: str, question: Any, mine: str, other: str
    ) -> None:
        self.ask(scripted, play, method, question)
        asked: list[Any] = []

        def wrong(question: Any) -> Any:
            raise AssertionError(question)

        with Client(scripted.open, **{mine: wrong}) as claude:
            assert claude.query("Hi").text == "method_not_found"

        def right(question: Any) -> Any:
            asked.append(question)
            return None if other == "on_budget" else False

        with Client(scripted.open, **{mine: wrong, other: right}) as claude:  # type: ignore[arg-type]
            claude.query("Hi")
        assert asked == [question]
        assert scripted.requests[-2][1]["capabilities"] == {"permissions": True, "budget": True}

    def test_a_callable_that_fails_says_no_and_its_exception_comes_out(
        self, scripted: Any, play: Any
    ) -> None:
        answers = self.ask(scripted, play)

        def fail(asked: BudgetRaiseParams) -> float:
            raise ZeroDivisionError

        with Client(scripted.open, on_budget=fail) as claude, pytest.raises(ZeroDivisionError):
            claude.query("Hi")
        nonsense: Any = lambda asked: True  # noqa: E731
        with Client(scripted.open, on_budget=nonsense) as claude, pytest.raises(TypeError, match="dollars"):
            claude.query("Hi")
        assert [bytes(answer.result) for answer in answers] == [b"{}", b"{}"]

    def test_one_that_was_withdrawn_meanwhile_is_not_answered_twice(self, scripted: Any, play: Any) -> None:
        answers: list[Any] = []

        def run(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(response: Any) -> None:
                answers.append(response)
                connection.respond(request, play.result())

            asking = connection.ask("budget/raise", SPENT, answered)
            connection.notify("$/cancelRequest", CancelParams(id=asking))

        scripted.on("query/run", run)
        with Client(scripted.open, on_budget=lambda asked: 20) as claude:
            assert claude.query("Hi").text == "Hello"
        assert len(answers) == 1
        assert answers[0].error is None or answers[0].error.kind == "request_cancelled"
