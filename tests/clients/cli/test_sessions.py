import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from dragoman.cli import sessions
from dragoman_protocol.session import (
    ForkOrigin,
    Item,
    SessionDeleteResult,
    SessionForkResult,
    SessionGetResult,
    SessionInfo,
    SessionListResult,
    SessionMessagesResult,
    TurnInfo,
)

ID = "12345678-1234-1234-1234-123456789012"
AT = time.mktime((2025, 1, 31, 12, 5, 0, 0, 0, -1))


def info(session_id: str = ID, **fields: Any) -> SessionInfo:
    return SessionInfo(session_id=session_id, state="idle", created_at=1, updated_at=AT, **fields)


def item(kind: str, **body: Any) -> Item:
    return Item(item_id="i", turn_id="t", seq=1, kind=kind, created_at=1, body=body)


@pytest.fixture
def served(scripted: Any, home: Any) -> Any:
    scripted.listen(home.paths.socket)
    found = [
        info(cwd="/w\tx", title="A\n\x1btitle", turn_count=2, cost_usd=0.5),
        info("87654321-1234-1234-1234-123456789012"),
    ]

    def page(connection: Any, request: Any, given: dict[str, Any]) -> None:
        cursor = "n" if given["limit"] == len(found) else None
        connection.respond(request, SessionListResult(data=found, next_cursor=cursor))

    scripted.on("session/list", page)
    turn = TurnInfo(turn_id="t", status="completed", started_at=1)
    scripted.answers("session/get", SessionGetResult(session=found[0], turns=[turn]))
    scripted.answers("session/delete", SessionDeleteResult(deleted=True))
    return scripted


def params(scripted: Any, method: str) -> list[dict[str, Any]]:
    return [given for name, given in scripted.requests if name == method]


class TestListing:
    """`sessions` and `sessions list`."""

    def test_in_a_pipe(self, run: Callable[..., Any], served: Any) -> None:
        done = run("sessions")
        assert done.status == 0
        assert done.out == (
            f"{ID}\t2025-01-31 12:05\tidle\t2\t$0.5000\t/w x\tA title\n"
            "87654321-1234-1234-1234-123456789012\t2025-01-31 12:05\tidle\t0\t\t\t\n"
        )
        assert params(served, "session/list") == [{"limit": 20}]
        assert served.requests[0][1]["scopes"][-1] == "read-all-sessions"

    def test_as_json(self, run: Callable[..., Any], served: Any) -> None:
        done = run("sessions", "list", "--limit", "2", "--cwd", "/", "--tag", "x", "--json")
        told = json.loads(done.out)
        assert (told["data"][0]["sessionId"], told["nextCursor"]) == (ID, "n")
        assert params(served, "session/list") == [{"limit": 2, "cwd": "/", "tag": "x"}]

    def test_the_options_of_list_without_its_name(self, run: Callable[..., Any], served: Any) -> None:
        assert json.loads(run("sessions", "--limit", "2", "--json").out)["nextCursor"] == "n"
        assert params(served, "session/list") == [{"limit": 2}]
        assert "Commands:" in run("sessions", "--help").out
        assert run("sessions", "lst").status == 2

    def test_more_than_a_page(self, run: Callable[..., Any], served: Any) -> None:
        def page(connection: Any, request: Any, given: dict[str, Any]) -> None:
            begin = int(given.get("cursor", 0))
            end = min(begin + given["limit"], 1300)
            data = [info(f"{at:036}") for at in range(begin, end)]
            cursor = str(end) if end < 1300 else None
            connection.respond(request, SessionListResult(data=data, next_cursor=cursor))

        served.on("session/list", page)
        told = json.loads(run("sessions", "--limit", "1200", "--json").out)
        assert [each["sessionId"] for each in told["data"]] == [f"{at:036}" for at in range(1200)]
        assert told["nextCursor"] == "1200"
        assert len(run("sessions", "--limit", "2000").out.splitlines()) == 1300

    def test_on_a_narrow_terminal_the_ids_stay(
        self, terminal: Callable[..., Any], served: Any, home: Any
    ) -> None:
        found = [info(cwd="/" + "folder/" * 20, title="title " * 40, cost_usd=1.25)]
        served.answers("session/list", SessionListResult(data=found))
        status, shown = terminal("sessions", NO_COLOR="1", COLUMNS="70").end()
        assert status == 0
        header, first = shown.splitlines()
        assert header.split()[:2] == ["Session", "Changed"]
        assert first.startswith("12345678  2025-01-31 12:05  idle   0      $1.2500  /f")
        assert len(first) <= 70

    def test_at_a_terminal(self, terminal: Callable[..., Any], served: Any, home: Any) -> None:
        status, shown = terminal("sessions", NO_COLOR="1", COLUMNS="100").end()
        assert status == 0
        header, first, _ = shown.splitlines()
        assert header.split() == ["Session", "Changed", "State", "Turns", "Cost", "Folder", "Title"]
        assert first.startswith("12345678  2025-01-31 12:05  idle")
        assert "\x1b" not in first

    def test_none_yet(self, terminal: Callable[..., Any], served: Any) -> None:
        served.answers("session/list", SessionListResult(data=[]))
        assert "No sessions yet." in terminal("sessions").end()[1]

    def test_folders(self, home: Any) -> None:
        assert sessions.short_folder(home.env["HOME"]) == "~"
        assert sessions.short_folder(home.env["HOME"] + "/a") == "~/a"
        assert sessions.short_folder(home.env["HOME"] + "a") == home.env["HOME"] + "a"


class TestShowing:
    """`sessions show`."""

    @pytest.fixture(autouse=True)
    def pages(self, served: Any) -> None:
        first = [
            item("userMessage", content="What\x1b?"),
            item("turnStarted"),
            item("toolUse", name="Bash", input={"command": "ls"}),
        ]
        image = {"type": "image", "source": {}}
        second = [
            item("assistantText", text="That."),
            item("userMessage", content=[{"type": "text", "text": "And this"}, image]),
            item("userMessage", content=None),
        ]

        def page(connection: Any, request: Any, given: dict[str, Any]) -> None:
            last = given.get("cursor") == "next"
            data, cursor = (second, None) if last else (first, "next")
            connection.respond(request, SessionMessagesResult(data=data, next_cursor=cursor))

        served.on("session/messages", page)

    def test_for_people(self, run: Callable[..., Any], served: Any) -> None:
        done = run("sessions", "show", "1234")
        assert done.out == (
            f"{ID}  idle  2025-01-31 12:05  /w\tx\n\n> What?\n\n● Bash {{'command': 'ls'}}\n\nThat.\n"
            "\n> And this\n[image]\n\n> \n"
        )
        assert [given.get("cursor") for given in params(served, "session/messages")] == [None, "next"]

    def test_as_json(self, run: Callable[..., Any], served: Any) -> None:
        told = json.loads(run("sessions", "show", ID, "--json").out)
        assert told["session"]["sessionId"] == ID
        assert len(told["turns"]) == 1
        assert len(told["items"]) == 6

    def test_who_answers_and_where_it_comes_from(self, run: Callable[..., Any], served: Any) -> None:
        origin = ForkOrigin(session_id="original", turn_id="t9", seq=5)
        forked = info(agent="style_checker", forked_from=origin)
        served.answers("session/get", SessionGetResult(session=forked, turns=[]))
        told = run("sessions", "show", ID).out
        assert "agent style_checker\nforked from original after turn t9\n" in told

    def test_one_that_is_not_there(self, run: Callable[..., Any], served: Any) -> None:
        served.fails("session/get", "session_not_found", "There is no session 'x'.")
        done = run("sessions", "show", ID)
        assert (done.status, done.out) == (1, "")
        assert "There is no session" in done.err


class TestDeleting:
    """`sessions delete`."""

    def test_without_asking(self, run: Callable[..., Any], served: Any) -> None:
        assert (
            run("sessions", "delete", "8765", "-y").out == "Deleted 87654321-1234-1234-1234-123456789012.\n"
        )
        assert json.loads(run("sessions", "delete", ID, "--yes", "--json").out) == {"deleted": True}
        assert [given["sessionId"][:4] for given in params(served, "session/delete")] == ["8765", "1234"]

    def test_asking(self, run: Callable[..., Any], served: Any) -> None:
        assert run("sessions", "delete", ID, stdin="n\n").status == 130
        assert not params(served, "session/delete")
        done = run("sessions", "delete", ID, stdin="y\n")
        assert done.status == 0
        assert "(A\ntitle) for good?" in done.err
        assert len(params(served, "session/delete")) == 1


class TestForking:
    """`sessions fork`."""

    def test_a_copy_is_made_and_named(self, run: Callable[..., Any], served: Any) -> None:
        served.answers("session/fork", SessionForkResult(session=info("the-fork")))
        done = run("sessions", "fork", "1234", "--at", "t", "--title", "T")
        assert (done.status, done.out) == (0, "the-fork\n")
        assert params(served, "session/fork") == [{"sessionId": ID, "atTurnId": "t", "title": "T"}]
        told = json.loads(run("sessions", "fork", ID, "--json").out)
        assert told["session"]["sessionId"] == "the-fork"
        assert params(served, "session/fork")[-1] == {"sessionId": ID}
