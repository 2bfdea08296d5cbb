import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dragoman
import pytest
from dragoman.cli import ask
from dragoman_protocol.budget import BudgetRaiseParams, BudgetState
from dragoman_protocol.lifecycle import PermissionRequestParams
from dragoman_protocol.session import SessionInfo, SessionListResult
from dragoman_protocol.stream import TextDelta, TurnStarted

PERMISSION = PermissionRequestParams(
    permission_id="p", session_id="s1", turn_id="t1", tool_name="Edit", input={"file_path": "/a"}
)


@pytest.fixture
def served(scripted: Any, home: Any) -> Any:
    scripted.listen(home.paths.socket)
    return scripted


def asked(scripted: Any) -> dict[str, Any]:
    """The parameters of the query that was run."""
    (params,) = [params for method, params in scripted.requests if method == "query/run"]
    del params["partialResultToken"]
    return params


def hang(connection: Any, request: Any, params: dict[str, Any]) -> None:
    """Begin to answer, and go on for ever."""
    connection.progress(params, TurnStarted(turn_id="t1"), 1)
    connection.progress(params, TextDelta(item_id="i1", offset=0, text="Half an answ"))


def test_the_answer(run: Callable[..., Any], served: Any) -> None:
    assert run("ask", "What", "is", "it?") == (0, "Hello\n", "")
    assert asked(served) == {"prompt": "What is it?", "cwd": os.getcwd()}
    hello = served.requests[0][1]
    assert hello["clientInfo"]["name"] == "dragoman ask"
    assert hello["scopes"] == ["query", "tools", "approve", "read-all-sessions"]
    assert "capabilities" not in hello  # nobody is there to be asked


def test_the_messages_api_and_an_answer_in_a_form(
    run: Callable[..., Any], served: Any, tmp_path: Path
) -> None:
    (tmp_path / "schema.json").write_text('{"type": "integer"}')
    done = run("ask", "Hi", "--direct", "--schema", str(tmp_path / "schema.json"), "--system", "Be brief.")
    assert done.status == 0
    assert asked(served) == {
        "prompt": "Hi",
        "upstream": "messagesApi",
        "systemPrompt": "Be brief.",
        "outputSchema": {"type": "integer"},
    }


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_a_schema_that_is_none(
    run: Callable[..., Any], served: Any, tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "schema.json").write_text(text)
    done = run("ask", "Hi", "--schema", str(tmp_path / "schema.json"))
    assert done.status == 2
    assert "schema.json" in done.err
    assert not served.requests


def test_every_option(run: Callable[..., Any], served: Any, tmp_path: Path) -> None:
    options = [
        "--cwd", str(tmp_path), "-m", "haiku", "--allow", "Read", "--allow", "Bash(git *)", "--deny", "Edit",
        "--permission-mode", "bypassPermissions", "--system", "Be brief.", "--max-turns", "3",
        "--timeout", "1.5", "--title", "T", "--tag", "x", "--agent", "debugger",
    ]  # fmt: skip
    assert run("ask", "Hi", *options).status == 0
    assert asked(served) == {
        "prompt": "Hi", "cwd": str(tmp_path), "model": "haiku", "allowedTools": ["Read", "Bash(git *)"],
        "disallowedTools": ["Edit"], "permissionMode": "bypassPermissions", "appendSystemPrompt": "Be brief.",
        "maxTurns": 3, "agent": "debugger", "timeoutMs": 1500, "title": "T", "tags": ["x"],
    }  # fmt: skip
    assert served.requests[0][1]["scopes"][-1] == "admin"


def test_what_is_piped_in_is_context(run: Callable[..., Any], served: Any) -> None:
    run("ask", "Why?", stdin="a\nb\n")
    assert asked(served)["prompt"] == "Why?\n\n<stdin>\na\nb\n</stdin>"


def test_what_is_piped_in_may_be_the_question(run: Callable[..., Any], served: Any) -> None:
    run("ask", stdin="Why?\n")
    assert asked(served)["prompt"] == "Why?"


def test_words_that_are_not_unicode(run: Callable[..., Any], served: Any) -> None:
    run("ask", "caf\udce9?")
    assert asked(served)["prompt"] == "caf\ufffd?"


@pytest.mark.parametrize("span", ["inf", "nan", "1e300", "0"])
def test_a_timeout_that_no_clock_can_tell(run: Callable[..., Any], served: Any, span: str) -> None:
    done = run("ask", "Hi", "--timeout", span)
    assert (done.status, done.out) == (2, "")
    assert "Invalid value for '--timeout'" in done.err
    assert not served.requests


def test_a_pipe_that_says_nothing_is_told_of(
    begin: Callable[..., Any], served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = begin("ask", "Hi", stdin=subprocess.PIPE)
    assert process.stderr.readline().startswith("dragoman: waiting for context on stdin")
    out, _ = process.communicate("", timeout=30)
    assert (process.returncode, out) == (0, "Hello\n")


def test_nothing_asked(run: Callable[..., Any], served: Any) -> None:
    done = run("ask")
    assert (done.status, done.out) == (2, "")
    assert "Nothing was asked" in done.err
    assert not served.requests


def test_the_result_as_json(run: Callable[..., Any], served: Any) -> None:
    done = run("ask", "Hi", "--json")
    assert (done.status, done.err) == (0, "")
    told = json.loads(done.out)
    assert (told["text"], told["sessionId"], told["usage"]) == (
        "Hello",
        "s1",
        {"inputTokens": 3, "outputTokens": 2},
    )


def test_events_as_json(run: Callable[..., Any], served: Any) -> None:
    done = run("ask", "Hi", "--json-events")
    *events, last = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"]["type"] for event in events] == [
        "turnStarted", "textDelta", "textDelta", "assistantText",
    ]  # fmt: skip
    assert events[0] == {
        "sessionId": "s1", "seq": 1, "cursor": "c1", "event": {"type": "turnStarted", "turnId": "t1"},
    }  # fmt: skip
    assert last["result"]["text"] == "Hello"


def test_a_turn_that_fails(run: Callable[..., Any], served: Any) -> None:
    served.fails("query/run", "auth_required", next_step="Log in first.")
    done = run("ask", "Hi")
    assert (done.status, done.out) == (1, "")
    assert "Log in first." in done.err
    done = run("ask", "Hi", "--json")
    assert (done.status, done.out) == (1, "")
    assert json.loads(done.err)["data"]["kind"] == "auth_required"
    done = run("ask", "Hi", "--json-events")
    assert json.loads(done.out)["error"]["code"] == 1100
    served.fails("query/run", "deadline_exceeded")
    assert run("ask", "Hi", "--timeout", "1").status == 124


def test_no_daemon_to_be_started(run: Callable[..., Any], home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(home.paths.state_dir).parent.parent.parent.mkdir(parents=True, exist_ok=True)
    Path(home.paths.state_dir).parent.parent.write_text("not a folder")
    done = run("ask", "Hi")
    assert done.status == 69
    assert done.err.startswith("dragoman: ")


class TestContinuing:
    """--session and --continue."""

    def listed(self, *ids: str) -> SessionListResult:
        return SessionListResult(
            data=[SessionInfo(session_id=each, state="idle", created_at=1, updated_at=2) for each in ids]
        )

    def test_a_session_by_the_beginning_of_its_id(self, run: Callable[..., Any], served: Any) -> None:
        served.answers("session/list", self.listed("abc1", "abd2"))
        assert run("ask", "Hi", "--session", "abc").status == 0
        assert asked(served) == {"prompt": "Hi", "sessionId": "abc1"}

    def test_a_whole_id_is_taken_as_it_is(self, run: Callable[..., Any], served: Any) -> None:
        whole = "12345678-1234-1234-1234-123456789012"
        assert run("ask", "Hi", "-s", whole).status == 0
        assert asked(served)["sessionId"] == whole

    @pytest.mark.parametrize(("beginning", "text"), [("ab", "2 sessions begin"), ("x", "No session begins")])
    def test_a_beginning_that_does_not_tell(
        self, run: Callable[..., Any], served: Any, beginning: str, text: str
    ) -> None:
        served.answers("session/list", self.listed("abc1", "abd2"))
        done = run("ask", "Hi", "-s", beginning)
        assert done.status == 2
        assert text in done.err

    def test_the_newest_of_the_folder(self, run: Callable[..., Any], served: Any, tmp_path: Path) -> None:
        served.answers("session/list", self.listed("abc1"))
        folder = tmp_path / "real"
        folder.mkdir()
        (tmp_path / "link").symlink_to(folder)
        assert run("ask", "Hi", "--continue", "--cwd", str(tmp_path / "link")).status == 0
        (listing,) = [params for method, params in served.requests if method == "session/list"]
        assert listing == {"limit": 1, "cwd": str(folder.resolve())}
        assert asked(served)["sessionId"] == "abc1"

    def test_no_session_of_the_folder(self, run: Callable[..., Any], served: Any) -> None:
        served.answers("session/list", self.listed())
        done = run("ask", "Hi", "-c")
        assert done.status == 2
        assert "There is no session of" in done.err

    def test_both_at_once(self, run: Callable[..., Any], served: Any) -> None:
        assert run("ask", "Hi", "-c", "-s", "a").status == 2
        assert run("ask", "Hi", "-c", "-s", "").status == 2

        assert run("ask", "Hi", "--fork", "a", "-s", "b").status == 2
        assert run("ask", "Hi", "--fork", "a", "-c").status == 2

    def test_a_fork_of_a_session(self, run: Callable[..., Any], served: Any) -> None:
        served.answers("session/list", self.listed("abc1", "abd2"))
        assert run("ask", "Hi", "--fork", "abc").status == 0
        assert asked(served) == {"prompt": "Hi", "fork": {"sessionId": "abc1"}}

    @pytest.mark.parametrize("option", ["--session", "--fork"])
    def test_an_empty_id_begins_no_new_session(
        self, run: Callable[..., Any], served: Any, option: str
    ) -> None:
        """A script whose variable is empty must not pay for another conversation."""
        done = run("ask", "Hi", option, "")
        assert (done.status, done.out) == (2, "")
        assert f"{option} needs an id" in done.err
        assert not served.requests


class TestInterrupting:
    """Ctrl-C."""

    def interrupt(self, begin: Callable[..., Any], served: Any, *options: str) -> tuple[int, str, str]:
        """Interrupt an answer half-way, as it is known to the client that it has begun."""
        served.on("query/run", hang)
        process = begin("ask", "Hi", *options)
        served.wait_for_request("query/run")
        first = "" if "--json" in options else process.stdout.read(12)
        process.send_signal(signal.SIGINT)
        out, err = first + process.stdout.read(), process.stderr.read()
        served.wait_for(lambda: all(each.closed for each in served.connections))
        return process.wait(30), out, err

    def test_the_turn_is_cancelled_and_it_is_said(self, begin: Callable[..., Any], served: Any) -> None:
        status, out, err = self.interrupt(begin, served)
        assert (status, out) == (130, "Half an answ\n")
        assert err == 'Cancelled. Go on with: dragoman ask --session s1 "…"\n'

    def test_as_json(self, begin: Callable[..., Any], served: Any) -> None:
        status, out, err = self.interrupt(begin, served, "--json")
        assert (status, out) == (130, "")
        assert json.loads(err)["data"]["kind"] in ("request_cancelled", "connection_closed")

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_before_the_answer_begins(
        self, run: Callable[..., Any], served: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
    ) -> None:
        def interrupt(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(dragoman.Client, "stream", interrupt)
        done = run("ask", "Hi", *options)
        assert (done.status, done.out) == (130, "")
        if options:
            assert json.loads(done.err)["data"]["kind"] == "request_cancelled"
        else:
            assert done.err == "dragoman: Interrupted before the answer began.\n"

    def test_as_events(self, begin: Callable[..., Any], served: Any) -> None:
        status, out, _ = self.interrupt(begin, served, "--json-events")
        assert status == 130
        assert "error" in json.loads(out.splitlines()[-1])


class TestAtATerminal:
    """With a person there."""

    def permission(self, served: Any, play: Any) -> None:
        def ask(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(answer: Any) -> None:
                connection.respond(request, play.result(bytes(answer.result).decode()))

            connection.ask("permission/request", PERMISSION, answered)

        served.on("query/run", ask)

    def test_a_permission_is_asked_for(self, terminal: Callable[..., Any], served: Any, play: Any) -> None:
        self.permission(served, play)
        shell = terminal("ask", "Hi", NO_COLOR="1")
        assert "Claude wants to use Edit:" in shell.read_until("say what to do instead: ")
        shell.type("y\n")
        status, shown = shell.end()
        assert status == 0
        assert '{"decision":"allow"}\n' in shown
        assert "claudeCode · 0.0 s · 3 in, 2 out · session s1" in shown
        assert served.requests[0][1]["capabilities"] == {"permissions": True, "budget": True}

    def test_ctrl_c_at_the_question(self, terminal: Callable[..., Any], served: Any, play: Any) -> None:
        self.permission(served, play)
        shell = terminal("ask", "Hi")
        shell.read_until("say what to do instead: ")
        shell.type("\x03")
        status, shown = shell.end()
        assert status == 130
        assert "Cancelled." in shown

    def test_a_budget_is_raised(self, terminal: Callable[..., Any], served: Any, play: Any) -> None:
        self.budget(served, play)
        shell = terminal("ask", "Hi")
        shown = shell.read_until("Raise it to how many dollars? [Enter: no] ")
        assert "The budget (client nvim) is spent: $5.00 of $5.00." in shown
        shell.type("12\n")
        status, shown = shell.end()
        assert status == 0
        assert '{"limitUsd":12.0}\n' in shown

    def test_ctrl_c_at_the_question_of_money(
        self, terminal: Callable[..., Any], served: Any, play: Any
    ) -> None:
        self.budget(served, play)
        shell = terminal("ask", "Hi")
        shell.read_until("[Enter: no] ")
        shell.type("\x03")
        status, shown = shell.end()
        assert status == 130
        assert "Cancelled." in shown

    def budget(self, served: Any, play: Any) -> None:
        """Have a budget asked about, and the answer to that told as the answer."""
        spent = BudgetState(scope="client", key="nvim", limit_usd=5, spent_usd=5)
        question = BudgetRaiseParams(budget=spent, needed_usd=0.5, expires_at=2e9)

        def ask(connection: Any, request: Any, params: dict[str, Any]) -> None:
            def answered(response: Any) -> None:
                connection.respond(request, play.result(bytes(response.result).decode()))

            connection.ask("budget/raise", question, answered)

        served.on("query/run", ask)

    def test_nothing_asked(self, terminal: Callable[..., Any], served: Any) -> None:
        status, shown = terminal("ask").end()
        assert status == 2
        assert "Nothing was asked" in shown

    def test_the_answer_cannot_command_the_terminal(
        self, terminal: Callable[..., Any], served: Any, play: Any
    ) -> None:
        served.answers("query/run", play.result("A\x1b[2JB"))
        status, shown = terminal("ask", "Hi").end()
        assert status == 0
        assert "A[2JB\n" in shown


def test_a_turn_that_could_not_be_told_of_in_time() -> None:
    class Ended:
        @property
        def result(self) -> None:
            return None

    assert ask._interrupted(Ended(), lambda error: None) == 130  # type: ignore[arg-type]
