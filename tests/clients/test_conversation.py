from typing import Any

import msgspec
import pytest
from dragoman import conversation
from dragoman.conversation import Conversation, Pending, Watch, read_event
from dragoman.errors import (
    AnswerError,
    BadFramingError,
    BusyError,
    ConnectionClosedError,
    InvalidParamsError,
    MessageTooLargeError,
    RequestCancelledError,
    TooManyClientsError,
)
from dragoman.questions import BUDGET, PERMISSION
from dragoman_protocol.budget import BudgetRaiseParams, BudgetRaiseResult, BudgetState
from dragoman_protocol.codec import MAX_MESSAGE, MAX_MESSAGE_BEFORE_INITIALIZE
from dragoman_protocol.errors import RpcError
from dragoman_protocol.lifecycle import (
    CancelParams,
    PermissionDecision,
    PermissionRequestParams,
    ProgressParams,
)
from dragoman_protocol.peer import Notification, Peer, Request, Response
from dragoman_protocol.query import QueryRunParams
from dragoman_protocol.stream import Raw, StreamEventParams, TextDelta, ToolUse
from dragoman_protocol.values import Empty

ASKED = PermissionRequestParams(
    permission_id="p", session_id="s", turn_id="t", tool_name="Edit", input={"a": 1}
)

SPENT = BudgetRaiseParams(
    budget=BudgetState(scope="hour", limit_usd=10, spent_usd=10), needed_usd=0.5, expires_at=2e9
)


def nothing() -> None:
    pass


class Both:
    """A conversation and the daemon's peer, with the bytes carried by hand."""

    def __init__(self, *, asks: Any = (), scopes: Any = None) -> None:
        self.woken = 0
        self.talk = Conversation("tester", scopes, asks=asks, wake=self.wake)
        self.peer = Peer()

    def wake(self) -> None:
        self.woken += 1

    def heard(self) -> list[Any]:
        data = bytes(self.talk.out)
        self.talk.out.clear()
        return self.peer.receive(data)

    def call(self, method: str, wake: Any = None, token: int | None = None) -> Pending:
        pending = Pending(method, wake, token)
        self.talk.call(pending, Empty())
        return pending

    def open(self) -> None:
        (request,) = self.heard()
        self.talk.receive(self.peer.respond(request, {}))

    def tell(self, method: str, params: Any) -> None:
        self.talk.receive(self.peer.notify(method, params))

    def progress(self, token: int, event: Any) -> None:
        self.tell("$/progress", ProgressParams(token=token, value=msgspec.Raw(msgspec.json.encode(event))))


@pytest.fixture
def both() -> Both:
    both = Both()
    both.open()
    return both


def text(offset: int = 0) -> StreamEventParams:
    return StreamEventParams(session_id="s", event=TextDelta(item_id="i", offset=offset, text="x"))


def tool() -> StreamEventParams:
    return StreamEventParams(session_id="s", seq=1, event=ToolUse(item_id="i", name="Bash", input={}))


def test_initialize_is_said_first_and_with_the_first_call() -> None:
    both = Both(asks=[PERMISSION], scopes=("query",))
    both.call("auth/status")
    first, second = both.heard()
    assert (first.method, second.method) == ("initialize", "auth/status")
    params = msgspec.json.decode(first.params)
    assert params["clientInfo"]["name"] == "tester"
    assert params["scopes"] == ["query"]
    assert params["capabilities"] == {"permissions": True}


def test_what_can_be_asked_is_said() -> None:
    (first,) = Both(asks=[PERMISSION, BUDGET]).heard()
    assert msgspec.json.decode(first.params)["capabilities"] == {"permissions": True, "budget": True}
    (first,) = Both(asks=[BUDGET]).heard()
    assert msgspec.json.decode(first.params)["capabilities"] == {"budget": True}


def test_a_client_that_cannot_be_asked_does_not_say_that_it_can() -> None:
    (first,) = Both().heard()
    params = msgspec.json.decode(first.params)
    assert "capabilities" not in params
    assert "scopes" not in params


def test_an_answer_that_does_not_fit_is_an_answer_error(both: Both) -> None:
    pending = both.call("x")
    (request,) = both.heard()
    both.talk.receive(both.peer.respond(request, [1]))
    assert pending.answered
    with pytest.raises(AnswerError, match="answer to x"):
        pending.take(Empty)
    assert pending.take(list[int]) == [1]


def test_a_refused_initialize_ends_everything_with_its_error() -> None:
    both = Both()
    pending = both.call("x")
    first, _ = both.heard()
    both.talk.receive(both.peer.fail(first, RpcError("too_many_clients")))
    with pytest.raises(TooManyClientsError):
        pending.take(Empty)
    with pytest.raises(TooManyClientsError):
        both.call("y")


def test_a_refused_initialize_outweighs_an_answer_that_came_with_it() -> None:
    both = Both()
    pending = both.call("x")
    first, second = both.heard()
    refused = both.peer.fail(first, RpcError("too_many_clients"))
    both.talk.receive(refused + both.peer.respond(second, {}))
    with pytest.raises(TooManyClientsError):
        pending.take(Empty)


def test_what_was_said_is_said_again_to_a_successor() -> None:
    both = Both()
    both.call("x")
    first = bytes(both.talk.out)
    for _ in range(3):
        both.talk.out.clear()
        assert both.talk.start_afresh()
        assert both.talk.out == first
    assert not both.talk.start_afresh()


def test_after_the_first_byte_nothing_is_said_again(both: Both) -> None:
    both.call("x")
    assert not both.talk.start_afresh()


def test_too_much_to_be_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "_REPEATABLE_BYTES", 1000)
    both = Both()
    both.talk.call(Pending("x"), msgspec.defstruct("Big", [("a", str, "x" * 1000)])())
    assert not both.talk.start_afresh()


def test_a_long_message_and_all_after_it_wait_for_the_answer_to_initialize() -> None:
    both = Both()
    long = msgspec.defstruct("Long", [("a", str, "x" * MAX_MESSAGE_BEFORE_INITIALIZE)])()
    both.call("one")
    both.talk.call(Pending("long"), long)
    both.call("two")
    first, second = both.heard()
    assert (first.method, second.method) == ("initialize", "one")
    both.talk.receive(both.peer.respond(first, {}))
    assert [request.method for request in both.heard()] == ["long", "two"]
    both.talk.call(Pending("long"), long)
    assert [request.method for request in both.heard()] == ["long"]


def test_what_cannot_be_said_changes_nothing(both: Both) -> None:
    both.talk.out.clear()
    with pytest.raises(MessageTooLargeError) as long:
        both.talk.call(Pending("query/run"), QueryRunParams(prompt="x" * MAX_MESSAGE))
    assert long.value.data.limit == MAX_MESSAGE
    with pytest.raises(InvalidParamsError, match="a text that is not Unicode"):
        both.talk.call(Pending("query/run"), QueryRunParams(prompt="caf\udce9"))
    assert (both.talk.out, both.talk.waiting, both.talk.failed) == (b"", False, None)


def test_events_go_to_the_request_that_brought_their_token(both: Both) -> None:
    woken: list[str] = []
    one = both.call("query/run", lambda: woken.append("one"), token=1)
    two = both.call("query/run", lambda: woken.append("two"), token=2)
    both.progress(2, text())
    both.progress(1, tool())
    both.progress(3, text())
    both.tell("$/progress", {"token": 1})
    both.tell("$/progress", {"token": 1, "value": "no event"})
    both.tell("$/moon", {})
    assert [type(told.event) for told in one.events] == [ToolUse]
    assert [type(told.event) for told in two.events] == [TextDelta]
    assert woken == ["two", "one"]


def test_events_after_the_answer_are_nobodys(both: Both) -> None:
    pending = both.call("query/run", token=1)
    (request,) = both.heard()
    both.talk.receive(both.peer.respond(request, {}))
    both.progress(1, text())
    assert not pending.events


def test_a_kind_of_event_that_is_not_known_is_kept_raw(both: Both) -> None:
    pending = both.call("query/run", token=1)
    both.progress(1, {"sessionId": "s", "seq": 4, "cursor": "c", "event": {"type": "moonrise", "phase": 0.5}})
    (told,) = pending.events
    assert isinstance(told.event, Raw)
    assert bytes(told.event.frame) == b'{"type":"moonrise","phase":0.5}'
    assert (told.session_id, told.seq, told.cursor) == ("s", 4, "c")
    assert read_event(msgspec.Raw(b'{"event": 1}')) is None


def test_too_many_unread_events(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "MAX_QUEUED", 2)
    pending = both.call("query/run", token=1)
    both.heard()
    for number in range(30):
        both.progress(1, text(number))
    assert len(pending.events) == 2
    for _ in range(30):
        both.progress(1, tool())
    assert len(pending.events) == 20
    (cancel,) = both.heard()
    assert cancel.method == "$/cancelRequest"
    assert msgspec.json.decode(cancel.params) == {"id": pending.id}


def test_a_request_is_cancelled_once_and_still_answered(both: Both) -> None:
    pending = both.call("query/run", token=1)
    both.talk.cancel(pending)
    both.talk.cancel(pending)
    request, cancel = both.heard()
    assert msgspec.json.decode(cancel.params, type=CancelParams).id == request.id
    both.talk.receive(both.peer.fail(request, RpcError("request_cancelled")))
    with pytest.raises(RequestCancelledError):
        pending.take(Empty)
    both.talk.cancel(pending)
    assert not both.talk.out


def test_events_of_a_session_go_to_who_watches_it(both: Both) -> None:
    watch = Watch("s")
    both.talk.watch(watch)
    both.tell("stream/event", tool())
    both.tell("stream/event", StreamEventParams(session_id="another", event=text().event))
    both.tell("stream/event", {"sessionId": 1})
    assert [told.seq for told in watch.events] == [1]
    both.tell("stream/dropped", {"sessionId": "another", "cursor": "c"})
    both.tell("stream/dropped", {"sessionId": 1})
    assert not watch.broken
    both.tell("stream/dropped", {"sessionId": "s", "cursor": "c"})
    both.tell("stream/event", tool())
    assert watch.broken
    assert len(watch.events) == 1


def test_a_watch_that_nobody_reads_ends(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "MAX_QUEUED", 2)
    watch = Watch("s")
    both.talk.watch(watch)
    for number in range(30):
        both.tell("stream/event", text(number))
    assert len(watch.events) == 2
    for _ in range(30):
        both.tell("stream/event", tool())
    assert len(watch.events) == 20
    assert watch.broken


def test_a_watch_ends_with_the_connection(both: Both) -> None:
    woken: list[bool] = []
    watch = Watch("s", lambda: woken.append(True))
    both.talk.watch(watch)
    both.talk.lost()
    assert watch.broken
    assert woken == [True]


class TestQuestions:
    """What the daemon asks."""

    def ask(self, both: Both, method: str = "permission/request", params: Any = ASKED) -> list[Response]:
        answers: list[Response] = []
        id, data = both.peer.request(method, params)
        both.talk.receive(data)
        self.id = id
        return answers

    def answers(self, both: Both) -> list[Response]:
        return [each for each in both.heard() if isinstance(each, Response)]

    def test_a_question_waits_for_its_answer(self) -> None:
        both = Both(asks=[PERMISSION])
        both.open()
        self.ask(both)
        assert both.woken >= 1
        question = both.talk.questions.popleft()
        assert question.params == ASKED
        both.talk.answer(question, PermissionDecision(decision="allow"))
        both.talk.answer(question, PermissionDecision(decision="allow"))
        (answer,) = self.answers(both)
        assert msgspec.json.decode(answer.result) == {"decision": "allow"}

    def test_one_that_cannot_be_read_is_refused(self) -> None:
        both = Both(asks=[PERMISSION])
        both.open()
        self.ask(both, params={"toolName": 1})
        (answer,) = self.answers(both)
        assert answer.error is not None
        assert answer.error.kind == "invalid_params"

    def test_a_budget_is_asked_about_beside_it(self) -> None:
        both = Both(asks=[PERMISSION, BUDGET])
        both.open()
        self.ask(both, "budget/raise", SPENT)
        question = both.talk.questions.popleft()
        assert (question.kind, question.params) == (BUDGET, SPENT)
        both.talk.answer(question, BudgetRaiseResult(limit_usd=20.0))
        (answer,) = self.answers(both)
        assert msgspec.json.decode(answer.result) == {"limitUsd": 20}

    @pytest.mark.parametrize(
        ("asks", "method", "params"),
        [([PERMISSION], "budget/raise", SPENT), ([BUDGET], "permission/request", ASKED)],
    )
    def test_nobody_elses_question_is_answered(self, asks: Any, method: str, params: Any) -> None:
        both = Both(asks=asks)
        both.open()
        self.ask(both, method, params)
        (answer,) = self.answers(both)
        assert answer.error is not None
        assert answer.error.kind == "method_not_found"
        assert not both.talk.questions

    @pytest.mark.parametrize("method", ["permission/request", "budget/raise", "moon/phase"])
    def test_who_does_not_answer_says_so(self, both: Both, method: str) -> None:
        self.ask(both, method)
        (answer,) = self.answers(both)
        assert answer.error is not None
        assert answer.error.kind == "method_not_found"
        assert not both.talk.questions

    @pytest.mark.parametrize("taken", [False, True])
    def test_one_that_is_withdrawn_is_answered_at_once(self, taken: bool) -> None:
        both = Both(asks=[PERMISSION])
        both.open()
        self.ask(both)
        question = both.talk.questions.popleft() if taken else both.talk.questions[0]
        withdrawn: list[bool] = []
        question.withdrawn = lambda: withdrawn.append(True)
        both.tell("$/cancelRequest", CancelParams(id=self.id))
        both.tell("$/cancelRequest", CancelParams(id=self.id))
        both.tell("$/cancelRequest", {"id": None})
        both.talk.answer(question, PermissionDecision(decision="allow"))
        (answer,) = self.answers(both)
        assert answer.error is not None
        assert answer.error.kind == "request_cancelled"
        assert withdrawn == [True]
        assert not both.talk.questions

    def test_the_end_of_the_connection_withdraws_all(self) -> None:
        both = Both(asks=[PERMISSION])
        both.open()
        self.ask(both)
        withdrawn: list[bool] = []
        both.talk.questions[0].withdrawn = lambda: withdrawn.append(True)
        both.talk.lost()
        assert withdrawn == [True]
        assert not both.talk.questions


def test_the_end_of_the_connection_is_everybodys_answer(both: Both) -> None:
    pending = both.call("x")
    both.heard()
    assert both.talk.waiting
    both.talk.lost()
    both.talk.lost(BusyError("later"))
    with pytest.raises(ConnectionClosedError):
        pending.take(Empty)
    both.talk.cancel(pending)
    both.talk.leave()
    assert not both.talk.out
    assert not bool(both.talk.waiting)


def test_leaving_is_said_to_a_daemon_that_was_heard(both: Both) -> None:
    both.talk.leave()
    (told,) = both.heard()
    assert isinstance(told, Notification)
    assert told.method == "exit"
    unheard = Both()
    unheard.heard()
    unheard.talk.leave()
    assert not unheard.talk.out


def test_bytes_that_are_no_messages_end_it(both: Both) -> None:
    pending = both.call("x")
    both.heard()
    both.talk.receive(b"{no json}\n")
    assert not pending.answered
    both.heard()  # a complaint without an id, which the peer takes for a response to nothing
    assert both.peer.unexpected_responses == 1
    broken = Conversation("tester", None, asks=(), wake=nothing)
    broken._peer.decoder.framing = "headers"
    waiting = Pending("x")
    broken.call(waiting, Empty())
    broken.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    with pytest.raises(BadFramingError):
        waiting.take(Empty)


def test_silence_is_answered_by_a_probe_then_given_up(both: Both) -> None:
    pending = both.call("x")
    both.heard()
    assert both.talk.silence()
    (probe,) = both.heard()
    assert isinstance(probe, Request)
    assert probe.method == "daemon/status"
    both.talk.receive(both.peer.respond(probe, {}))
    assert both.talk.silence()
    assert not both.talk.silence()
    with pytest.raises(BusyError, match="frozen"):
        pending.take(Empty)


def test_silence_before_initialize_was_answered_is_given_up_at_once() -> None:
    both = Both()
    assert not both.talk.silence()
    with pytest.raises(BusyError):
        both.talk.opened()


def test_what_was_never_said_is_not_cancelled(both: Both) -> None:
    both.talk.cancel(Pending("x"))
    assert not both.talk.out
