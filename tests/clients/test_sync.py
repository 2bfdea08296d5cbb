"""The blocking client against real sockets; what moves the bytes is in test_blocking.py."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import dragoman
import pytest
from dragoman.errors import (
    AnswerError,
    ConnectionClosedError,
    DrainingError,
    NotRunningError,
    QuotaExhaustedError,
    RequestCancelledError,
    RequestTimeoutError,
    SessionNotFoundError,
)
from dragoman.sync import Client
from dragoman_protocol.stream import AssistantText, TextDelta, ToolUse, TurnStarted

TEXTS = ["Hel", "lo"]


@pytest.fixture
def claude(scripted: Any) -> Iterator[Client]:
    with Client(scripted.open, client_name="tester") as claude:
        yield claude


def test_a_query(claude: Client, scripted: Any) -> None:
    answer = claude.query("Hi", model="haiku", cwd="/", timeout_s=3)
    assert (answer.text, answer.session_id, answer.usage.output_tokens) == ("Hello", "s1", 2)
    (first, second) = scripted.requests
    assert first[0] == "initialize"
    assert second == ("query/run", {"prompt": "Hi", "model": "haiku", "cwd": "/", "timeoutMs": 3000})


def test_every_other_method(claude: Client, scripted: Any) -> None:
    assert claude.limits_state().max_running == 8
    assert claude.server.server_info.name == "scripted"
    assert claude.server.scopes == ["query", "tools", "approve"]


def test_what_the_server_is_can_be_asked_first(claude: Client) -> None:
    assert claude.server.connection_id == "c1"


def test_scopes_are_asked_for(scripted: Any) -> None:
    with Client(scripted.open, scopes=["admin"]) as claude:
        assert claude.server.scopes == ["admin"]
    (_, params), *_ = scripted.requests
    assert params["clientInfo"]["name"]  # the program's own, when no other is given


def test_a_stream(claude: Client) -> None:
    streaming = claude.stream("Hi")
    assert [type(event) for event in streaming] == [TurnStarted, TextDelta, TextDelta, AssistantText]
    assert streaming.result.text == "Hello"
    assert streaming.last is not None
    assert (streaming.last.session_id, streaming.last.seq, streaming.last.cursor) == ("s1", 2, "c2")
    assert list(streaming) == []


def test_the_text_of_a_stream(claude: Client) -> None:
    assert list(claude.stream("Hi").texts()) == TEXTS


def test_the_result_of_a_stream_that_nobody_reads(claude: Client) -> None:
    streaming = claude.stream("Hi")
    assert streaming.result.text == "Hello"
    assert streaming.result.text == "Hello"


def test_two_streams_at_once_do_not_mix(claude: Client, scripted: Any, play: Any) -> None:
    one, two = claude.stream("one"), claude.stream("two")
    scripted.wait_for_request("query/run", 2)
    assert list(two.texts()) == TEXTS
    assert list(one.texts()) == TEXTS
    tokens = [params["partialResultToken"] for method, params in scripted.requests if method == "query/run"]
    assert len(set(tokens)) == 2


def begin(connection: Any, request: Any, params: dict[str, Any]) -> None:
    """Begin to answer, and go on for ever."""
    connection.progress(params, TurnStarted(turn_id="t1"), 1)
    connection.progress(params, TextDelta(item_id="i1", offset=0, text="Half"))


def test_leaving_the_loop_early_cancels_the_turn(claude: Client, scripted: Any) -> None:
    scripted.on("query/run", begin)
    streaming = claude.stream("Hi")
    for _ in streaming:
        break
    scripted.wait_for_told("$/cancelRequest")
    with pytest.raises(RequestCancelledError) as cancelled:
        _ = streaming.result
    assert cancelled.value.data.text == "Half an ans"  # type: ignore[attr-defined]


def test_leaving_the_texts_early_cancels_the_turn(claude: Client, scripted: Any) -> None:
    scripted.on("query/run", begin)
    for text in claude.stream("Hi").texts():
        assert text == "Half"
        break
    scripted.wait_for_told("$/cancelRequest")


def test_cancelling_ends_the_loop(claude: Client, scripted: Any) -> None:
    scripted.on("query/run", begin)
    streaming = claude.stream("Hi")
    seen = []
    for event in streaming:
        seen.append(event)
        if isinstance(event, TextDelta):
            streaming.cancel()
    assert len(seen) == 2
    with pytest.raises(RequestCancelledError):
        _ = streaming.result


def test_a_stream_as_a_context_is_cancelled_at_its_end(claude: Client, scripted: Any) -> None:
    scripted.on("query/run", begin)
    with claude.stream("Hi") as streaming:
        assert next(iter(streaming))
    with pytest.raises(RequestCancelledError):
        _ = streaming.result
    with claude.stream("Hi") as streaming:
        scripted.wait_for_request("query/run", 2)
    scripted.on("query/run", lambda connection, request, params: connection.respond(request, {}))
    with claude.stream("Hi") as streaming:
        assert list(streaming) == []


def test_a_turn_that_fails_raises_at_the_end_of_the_loop(claude: Client, scripted: Any) -> None:
    def fail(connection: Any, request: Any, params: dict[str, Any]) -> None:
        connection.progress(params, ToolUse(item_id="i", name="Bash", input={}), 1)
        connection.fail(request, "quota_exhausted", resets_at=7.0)

    scripted.on("query/run", fail)
    seen = []
    with pytest.raises(QuotaExhaustedError) as failed:  # noqa: PT012
        for event in claude.stream("Hi"):
            seen.append(event)  # noqa: PERF402
    assert len(seen) == 1
    assert failed.value.retryable
    assert failed.value.data.resets_at == 7.0  # type: ignore[attr-defined]


def test_an_answer_that_does_not_fit(claude: Client, scripted: Any) -> None:
    scripted.answers("query/run", {"text": 1})
    with pytest.raises(AnswerError):
        claude.query("Hi")


def test_no_answer_in_time_cancels_the_request(claude: Client, scripted: Any) -> None:
    scripted.holds("query/run")
    with pytest.raises(RequestTimeoutError, match="query/run was not answered in time"):
        claude.query_run("Hi", timeout_s=0.05)
    scripted.wait_for_told("$/cancelRequest")
    assert claude.limits_state(timeout_s=20).max_running == 8


def test_a_client_that_was_closed(claude: Client) -> None:
    claude.query("Hi")
    claude.close()
    claude.close()
    with pytest.raises(ConnectionClosedError, match="closed"):
        claude.query("Hi")


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


def test_a_draining_daemon_is_left_for_its_successor(claude: Client, scripted: Any, play: Any) -> None:
    scripted.on("query/run", drain_first(play, 2))
    assert claude.query("Hi").text == "Hello"
    scripted.on("query/run", drain_first(play, 2))
    assert list(claude.stream("Hi").texts()) == TEXTS
    assert len(scripted.connections) == 5


def test_a_daemon_that_drains_for_ever(claude: Client, scripted: Any, play: Any) -> None:
    scripted.fails("query/run", "draining")
    with pytest.raises(DrainingError) as draining:
        claude.query("Hi")
    assert draining.value.retryable
    with pytest.raises(DrainingError):
        list(claude.stream("Hi"))


def test_a_draining_daemon_is_not_left_while_something_runs_there(
    claude: Client, scripted: Any, play: Any
) -> None:
    scripted.on("query/run", begin)
    running = claude.stream("Hi")
    scripted.wait_for_request("query/run")
    scripted.fails("query/run", "draining")
    with pytest.raises(DrainingError):
        claude.query("Hi")
    running.cancel()
    assert len(scripted.connections) == 1


class TestFindingTheDaemon:
    """`connect`, and the functions that connect by themselves."""

    def test_connecting_to_the_daemon_that_runs(self, scripted: Any, place: Any) -> None:
        scripted.listen(place.paths.socket)
        with dragoman.connect("me", start=False, env=place.env) as claude:
            assert claude.query("Hi").text == "Hello"
        with dragoman.connect("me", env=place.env) as claude:
            assert claude.query("Hi").text == "Hello"

    def test_no_daemon(self, place: Any) -> None:
        with pytest.raises(NotRunningError):
            dragoman.connect(start=False, env=place.env)

    def test_one_question(self, scripted: Any, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        scripted.listen(place.paths.socket)
        for name in ("HOME", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, place.env[name])
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            monkeypatch.delenv(name, raising=False)
        assert dragoman.query("Hi").text == "Hello"
        assert "".join(dragoman.stream("Hi").texts()) == "Hello"
        streaming = dragoman.stream("Hi")
        assert streaming.result.text == "Hello"
        with dragoman.stream("Hi") as streaming:
            pass
        scripted.wait_for(lambda: all(each.closed for each in scripted.connections))

    def test_a_stream_that_cannot_begin_leaves_no_connection(
        self, scripted: Any, place: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scripted.listen(place.paths.socket)
        for name in ("HOME", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, place.env[name])
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        with pytest.raises(TypeError):
            dragoman.stream("Hi", modle="opus")  # type: ignore[call-arg]
        scripted.wait_for(lambda: all(each.closed for each in scripted.connections))


class TestWatching:
    """`events`: what happens in a session, whoever works in it."""

    @pytest.fixture
    def session(self, scripted: Any, play: Any) -> Any:
        return play.Session(scripted)

    def test_from_the_beginning_and_live(self, claude: Client, session: Any) -> None:
        session.happens(3)
        events = claude.events("s1")
        seen = []
        for event in events:
            seen.append(event.text)  # type: ignore[union-attr]
            if len(seen) == 3:
                session.happens(2)
            if len(seen) == 5:
                break
        assert seen == ["1", "2", "3", "4", "5"]
        assert events.last is not None
        assert events.last.seq == 5
        session.daemon.wait_for_request("stream/detach", 2)
        assert session.cursors == [None]

    def test_from_a_cursor(self, claude: Client, session: Any) -> None:
        session.happens(3)
        assert next(iter(claude.events("s1", "2"))).text == "3"  # type: ignore[union-attr]

    def test_a_reader_that_was_too_slow_goes_on_where_it_was(self, claude: Client, session: Any) -> None:
        session.happens(2)
        watching = iter(claude.events("s1"))
        assert next(watching).text == "1"  # type: ignore[union-attr]
        session.drops()
        session.happens(1)
        assert [next(watching).text for _ in range(2)] == ["2", "3"]  # type: ignore[union-attr]
        assert session.cursors == [None, "2"]

    def test_a_lost_connection_raises_and_can_be_gone_on_from(self, claude: Client, session: Any) -> None:
        session.happens(1)
        events = claude.events("s1")
        watching = iter(events)
        next(watching)
        session.connection.close()
        with pytest.raises(ConnectionClosedError):
            next(watching)
        session.happens(1)
        assert next(iter(events)).text == "2"  # type: ignore[union-attr]
        assert session.cursors == [None, "1"]

    def test_no_such_session(self, claude: Client, scripted: Any, session: Any) -> None:
        scripted.fails("stream/attach", "session_not_found")
        with pytest.raises(SessionNotFoundError):
            next(iter(claude.events("s1")))

    def test_leaving_after_the_end_of_the_connection(self, claude: Client, session: Any) -> None:
        session.happens(1)
        watching = iter(claude.events("s1"))
        next(watching)
        claude.close()
        watching.close()  # type: ignore[attr-defined]


def test_ctrl_c_cancels_the_request_and_waits_for_its_end(scripted: Any, place: Any) -> None:
    scripted.listen(place.paths.socket)
    scripted.holds("query/run")
    code = (
        "import dragoman\n"
        "with dragoman.connect() as claude:\n"
        "    try:\n"
        "        claude.query('Hi')\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', claude.limits_state().max_running)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=place.env, stdout=subprocess.PIPE, text=True) as process:
        scripted.wait_for_request("query/run")
        process.send_signal(2)
        out, _ = process.communicate(timeout=30)
    assert out == "interrupted 8\n"
    assert process.returncode == 0
    # Ctrl-C just while the request was being sent closes the connection, which cancels as well.
    assert ("$/cancelRequest", {"id": 2}) in scripted.told or len(scripted.connections) == 2


def test_the_folder_of_the_process_is_the_default(claude: Client, scripted: Any) -> None:
    claude.query("Hi")
    assert scripted.requests[-1][1]["cwd"] == os.getcwd()
