import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from dragoman.cli import rpc
from dragoman_protocol.stream import TextDelta


@pytest.fixture
def call(run: Callable[..., Any], scripted: Any, home: Any) -> Callable[..., Any]:
    scripted.listen(home.paths.socket)
    return lambda *arguments, **given: run("rpc", *arguments, **given)


def test_a_result_is_one_line_of_json(call: Callable[..., Any], scripted: Any) -> None:
    scripted.answers("x/y", {"a": "ü"})
    done = call("x/y", '{"b": 1}')
    assert (done.status, done.out, done.err) == (0, '{"a": "ü"}\n', "")
    assert scripted.requests == [("initialize", {"clientInfo": {"name": "dragoman rpc"}}), ("x/y", {"b": 1})]


def test_parameters_from_stdin_and_none(call: Callable[..., Any], scripted: Any) -> None:
    scripted.answers("x/y", {})
    call("x/y", "-", stdin='{"b": 2}')
    call("x/y")
    call("x/y", "[]")
    assert [params for method, params in scripted.requests if method == "x/y"] == [{"b": 2}, {}, []]


def test_an_error_is_one_line_of_json_on_stderr(call: Callable[..., Any], scripted: Any) -> None:
    scripted.fails("x/y", "session_not_found", "There is no session 'ü'.", session_id="ü")
    done = call("x/y")
    assert (done.status, done.out) == (1, "")
    error = json.loads(done.err)
    assert error["code"] == 1300
    assert error["data"] == {"kind": "session_not_found", "retryable": False, "sessionId": "ü"}


def test_scopes(call: Callable[..., Any], scripted: Any) -> None:
    call("limits/state", "--scope", "admin", "--scope=auth")
    assert scripted.requests[0][1]["scopes"] == ["query", "tools", "approve", "admin", "auth"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "expected METHOD"),
        (["a", "{}", "{}"], "expected METHOD"),
        (["a", "--moon"], "unknown option --moon"),
        (["a", "--timeout"], "--timeout needs a value"),
        (["a", "--timeout", "soon"], "--timeout needs seconds"),
        (["a", "--timeout", "0"], "more than 0"),
        (["a", "--timeout=nan"], "more than 0"),
        (["a", "--timeout", "1e400"], "at most 1000000000"),
        (["a", "{"], "not JSON"),
        (["a", "1"], "must be a JSON object"),
    ],
)
def test_wrong_usage(call: Callable[..., Any], scripted: Any, arguments: list[str], text: str) -> None:
    done = call(*arguments)
    assert done.status == 2
    assert text in done.err
    assert not scripted.connections


def test_help(call: Callable[..., Any]) -> None:
    for word in ("--help", "-h"):
        assert "Exit status:" in call("x", word).out


def test_no_daemon(run: Callable[..., Any]) -> None:
    done = run("rpc", "auth/status", "--no-start")
    assert done.status == 69
    assert json.loads(done.err)["data"]["kind"] == "no_daemon"


def test_a_deadline_cancels_the_request(call: Callable[..., Any], scripted: Any) -> None:
    scripted.holds("x/y")
    done = call("x/y", "--timeout", "0.2")
    assert done.status == 124
    assert json.loads(done.err)["data"]["text"] == "Half an ans"
    assert scripted.told == [("$/cancelRequest", {"id": 1})]


def test_a_deadline_of_which_the_daemon_knows_nothing(
    call: Callable[..., Any], scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_CANCEL_S", 0.05)
    scripted.cancels = False
    scripted.holds("x/y")
    done = call("x/y", "--timeout", "0.2")
    assert done.status == 124
    told = json.loads(done.err)
    assert told["data"]["kind"] == "timeout"
    assert told["message"].endswith("It does not answer that either: dragoman daemon status")


def test_a_deadline_that_passes_before_anything_was_said(call: Callable[..., Any], scripted: Any) -> None:
    done = call("limits/state", "--timeout", "1e-9")
    assert done.status == 124
    assert not scripted.requests


def test_the_connection_ends_before_the_answer(call: Callable[..., Any], scripted: Any) -> None:
    scripted.on("x/y", lambda connection, request, params: connection.close())
    done = call("x/y")
    assert done.status == 74
    assert json.loads(done.err)["data"]["kind"] == "connection_closed"


def test_a_daemon_that_is_leaving(call: Callable[..., Any], scripted: Any, play: Any) -> None:
    def leave(connection: Any, request: Any, params: dict[str, Any]) -> None:
        connection.close()
        scripted.on("initialize", play.initialize)

    scripted.on("initialize", leave)
    assert call("limits/state").status == 0
    scripted.on("initialize", lambda connection, request, params: connection.close())
    assert call("limits/state").status == 74


def test_a_daemon_that_is_draining(call: Callable[..., Any], scripted: Any) -> None:
    def drain(connection: Any, request: Any, params: dict[str, Any]) -> None:
        scripted.answers("x/y", {"served": True})  # first: the next request may come at once
        connection.fail(request, "draining")

    scripted.on("x/y", drain)
    assert call("x/y").out == '{"served": true}\n'
    scripted.fails("x/y", "draining")
    done = call("x/y")
    assert (done.status, json.loads(done.err)["code"]) == (1, 1001)


def test_a_refused_initialize_is_the_answer(call: Callable[..., Any], scripted: Any) -> None:
    scripted.fails("initialize", "too_many_clients")
    scripted.holds("x/y")
    done = call("x/y")
    assert (done.status, json.loads(done.err)["code"]) == (1, 1008)


def test_what_is_told_meanwhile(call: Callable[..., Any], scripted: Any) -> None:
    def tell(connection: Any, request: Any, params: dict[str, Any]) -> None:
        connection.progress(params, TextDelta(item_id="i", offset=0, text="Hel"))
        connection.respond(request, {"text": "Hello"})

    scripted.on("x/y", tell)
    params = '{"partialResultToken": 7}'
    assert call("x/y", params).out == '{"text": "Hello"}\n'
    first, second = call("x/y", params, "--notifications").out.splitlines()
    assert json.loads(first)["params"]["value"]["event"]["text"] == "Hel"
    assert json.loads(second) == {"text": "Hello"}


def test_a_long_request_waits_until_the_connection_is_open(call: Callable[..., Any], scripted: Any) -> None:
    """Until then a daemon takes 1 MiB a message."""
    long = json.dumps({"a": "x" * 2_000_000})
    open_with = scripted.scripts["initialize"]

    def initialize(connection: Any, request: Any, params: dict[str, Any]) -> None:
        assert len(connection.peer.incoming) == 1
        assert not connection.peer.decoder._held
        open_with(connection, request, params)

    scripted.on("initialize", initialize)
    scripted.answers("x/y", {})
    assert call("x/y", "-", stdin=long).status == 0
    scripted.on("x/y", lambda connection, request, params: connection.close())
    assert call("x/y", "-", stdin=long).status == 74
    scripted.fails("initialize", "too_many_clients")
    assert call("x/y", "-", stdin=long).status == 1


def test_questions_are_refused(call: Callable[..., Any], scripted: Any) -> None:
    def ask(connection: Any, request: Any, params: dict[str, Any]) -> None:
        connection.ask(
            "permission/request", {}, lambda answer: connection.respond(request, {"kind": answer.error.kind})
        )

    scripted.on("x/y", ask)
    assert json.loads(call("x/y").out) == {"kind": "method_not_found"}


def test_ctrl_c_cancels_the_request(begin: Callable[..., Any], scripted: Any, home: Any) -> None:
    scripted.listen(home.paths.socket)
    scripted.holds("x/y")
    process = begin("rpc", "x/y")
    scripted.wait_for_request("x/y")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert json.loads(err)["data"]["kind"] == "request_cancelled"
    assert scripted.told == [("$/cancelRequest", {"id": 1})]


def test_ctrl_c_twice_leaves_at_once(begin: Callable[..., Any], scripted: Any, home: Any) -> None:
    scripted.listen(home.paths.socket)
    scripted.cancels = False
    scripted.holds("x/y")
    process = begin("rpc", "x/y")
    scripted.wait_for_request("x/y")
    process.send_signal(signal.SIGINT)
    scripted.wait_for_told("$/cancelRequest")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


def test_a_reader_that_left(scripted: Any, home: Any) -> None:
    scripted.listen(home.paths.socket)
    scripted.answers("x/y", {"text": "x" * 100_000})
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dragoman.cli.main", "rpc", "x/y"]
    done = subprocess.run(
        command, env=home.env, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (74, b"")


def test_a_reader_that_left_meanwhile(scripted: Any, home: Any) -> None:
    def tell(connection: Any, request: Any, params: dict[str, Any]) -> None:
        connection.notify("a/b", {"text": "x" * 100_000})

    scripted.listen(home.paths.socket)
    scripted.on("x/y", tell)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dragoman.cli.main", "rpc", "x/y", "--notifications"]
    done = subprocess.run(
        command, env=home.env, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (74, b"")
