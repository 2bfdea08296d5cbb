"""One end of a conversation: both books are kept, and every wrong is answered once or not at all."""

import json
from typing import Any

import msgspec
import pytest
from dragoman_protocol.codec import Framing
from dragoman_protocol.errors import RpcError
from dragoman_protocol.peer import MAX_BATCH, Arrival, Notification, Peer, Reply, Request, Response


def lines(*messages: Any) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def call(id: Any, method: Any = "x", **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, **more}


def only(arrivals: list[Arrival]) -> Any:
    (arrival,) = arrivals
    return arrival


def reply(peer: Peer, *messages: Any) -> dict[str, Any]:
    """The one reply to *messages*."""
    arrival = only(peer.receive(lines(*messages)))
    assert isinstance(arrival, Reply)
    assert not arrival.fatal
    return dict(json.loads(arrival.data))


# -- requests that come in


@pytest.mark.parametrize("framing", ["lines", "headers"])
def test_request_and_response_travel_in_the_framing_of_the_client(framing: Framing) -> None:
    client, daemon = Peer(framing=framing), Peer()
    assert daemon.framing == "lines"
    waiter = object()
    id, sent = client.request("a/b", {"x": 1}, waiter)
    request = only(daemon.receive(sent))
    assert isinstance(request, Request)
    assert (request.id, request.method, bytes(request.params)) == (id, "a/b", b'{"x":1}')
    assert daemon.incoming == {id: request}
    response = only(client.receive(daemon.respond(request, {"y": 2})))
    assert isinstance(response, Response)
    assert (response.id, response.waiter, bytes(response.result), response.error) == (
        id,
        waiter,
        b'{"y":2}',
        None,
    )
    assert (daemon.framing, daemon.incoming, client.outgoing) == (framing, {}, {})


def test_error_travels_with_its_data() -> None:
    client, daemon = Peer(framing="lines"), Peer()
    _, sent = client.request("x")
    failed = daemon.fail(
        only(daemon.receive(sent)), RpcError("throttled", "pause", retry_after_ms=5, status=429)
    )
    error = only(client.receive(failed)).error
    assert isinstance(error, RpcError)
    assert (error.kind, error.code, error.message, error.retryable) == ("throttled", 1203, "pause", True)
    assert (error.data.retry_after_ms, getattr(error.data, "status", None)) == (5, 429)


def test_notification() -> None:
    peer = Peer(framing="lines")
    arrival = only(Peer().receive(peer.notify("n", [1])))
    assert isinstance(arrival, Notification)
    assert (arrival.method, bytes(arrival.params)) == ("n", b"[1]")
    assert bytes(only(Peer().receive(lines({"jsonrpc": "2.0", "method": "n"}))).params) == b""


def test_one_request_one_response() -> None:
    peer = Peer()
    request = only(peer.receive(lines(call(1))))
    with pytest.raises(TypeError):
        peer.respond(request, object())
    assert peer.incoming == {1: request}
    assert json.loads(peer.respond(request, None)) == {"jsonrpc": "2.0", "id": 1, "result": None}
    with pytest.raises(LookupError, match="the request 1 was answered before"):
        peer.respond(request, None)
    with pytest.raises(LookupError):
        peer.fail(request, RpcError("draining"))


def test_id_may_be_used_again_after_its_response_and_not_before() -> None:
    peer = Peer()
    first = only(peer.receive(lines(call(1))))
    refusal = reply(peer, call(1))
    assert refusal["id"] == 1
    assert refusal["error"]["data"]["path"] == "$.id"
    peer.respond(first, None)
    second = only(peer.receive(lines(call(1))))
    with pytest.raises(LookupError):
        peer.respond(first, None)
    assert peer.respond(second, None)


def test_ids_are_told_apart_by_their_type() -> None:
    peer = Peer()
    number, text = peer.receive(lines(call(1), call("1")))
    assert isinstance(number, Request)
    assert isinstance(text, Request)
    assert json.loads(peer.respond(text, None))["id"] == "1"
    assert json.loads(peer.respond(number, None))["id"] == 1


# -- what is wrong


@pytest.mark.parametrize(
    ("message", "id", "kind"),
    [
        ({"id": 7, "method": "x"}, 7, "invalid_request"),
        (call(7) | {"jsonrpc": "1.0"}, 7, "invalid_request"),
        ({"method": "x"}, None, "invalid_request"),
        (call(7, result=1), 7, "invalid_request"),
        (call(7, error={"code": 1, "message": "m"}), 7, "invalid_request"),
        (call(7, params=1), 7, "invalid_request"),
        (call(7, params="text"), 7, "invalid_request"),
        (call(7, params=True), 7, "invalid_request"),
        (call(None), None, "invalid_request"),
        (call(1.5), None, "invalid_request"),
        (call(True), None, "invalid_request"),
        ({"jsonrpc": "2.0", "id": 7}, 7, "invalid_request"),
        ({"jsonrpc": "2.0", "id": None}, None, "invalid_request"),
        ({}, None, "invalid_request"),
        (call(7, method=1), 7, "invalid_request"),
        (call(7, params=json.loads("[" * 65 + "]" * 65)), 7, "too_complex"),
        ("text", None, "invalid_request"),
    ],
)
def test_invalid_request_is_answered_once(message: Any, id: Any, kind: str) -> None:
    peer = Peer(framing="lines")
    answer = reply(peer, message)
    assert answer["id"] == id
    assert answer["error"]["data"]["kind"] == kind
    assert peer.incoming == {}


@pytest.mark.parametrize("params", [{}, [], None])
def test_params_that_are_an_object_an_array_or_null_are_taken(params: Any) -> None:
    assert isinstance(only(Peer().receive(lines(call(1, params=params)))), Request)


def test_with_two_ids_nobody_is_told_by_id() -> None:
    arrival = only(Peer().receive(b'{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}\n'))
    assert json.loads(arrival.data)["id"] is None


def test_bytes_that_are_no_message() -> None:
    peer = Peer()
    arrivals = peer.receive(b"{\n" + lines(call(1)))
    assert [type(arrival) for arrival in arrivals] == [Reply, Request]
    assert isinstance(arrivals[0], Reply)
    assert json.loads(arrivals[0].data)["error"]["code"] == -32700
    empty = only(Peer().receive(b"Content-Length: 0\r\n\r\n"))
    assert empty.error.kind == "parse_error"
    assert not empty.fatal


def test_only_bad_framing_is_fatal() -> None:
    peer = Peer(framing="headers", max_bytes=5)
    large, bad = peer.receive(b"Content-Length: 6\r\n\r\n[1234]\r\n\r\n")
    assert isinstance(large, Reply)
    assert isinstance(bad, Reply)
    assert (large.error.kind, large.fatal) == ("message_too_large", False)
    assert (bad.error.kind, bad.fatal) == ("bad_framing", True)
    assert bad.data.startswith(b"Content-Length: ")


# -- responses


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": 99, "result": 1},
        {"jsonrpc": "2.0", "id": "1", "result": 1},
        {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "m"}},
        {"jsonrpc": "2.0", "result": 1},
        {"jsonrpc": "2.0", "id": True, "error": "no"},
        {"jsonrpc": "2.0", "id": 99, "error": "no"},
        {"jsonrpc": "2.0", "id": [], "result": 1},
    ],
)
def test_response_to_nothing_is_counted_and_never_answered(message: Any) -> None:
    peer = Peer(framing="lines")
    peer.request("x")
    assert peer.receive(lines(message)) == []
    assert peer.unexpected_responses == 1
    assert list(peer.outgoing) == [1]


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ({"error": "no"}, "invalid_request"),
        ({"error": {"code": "x", "message": "m"}}, "invalid_request"),
        ({"result": json.loads("[" * 65 + "]" * 65)}, "too_complex"),
    ],
)
def test_broken_response_ends_its_request(members: dict[str, Any], kind: str) -> None:
    peer = Peer(framing="lines")
    peer.request("x", waiter="w")
    response = only(peer.receive(lines({"jsonrpc": "2.0", "id": 1, **members})))
    assert isinstance(response, Response)
    assert response.waiter == "w"
    assert response.error is not None
    assert response.error.kind == kind
    assert bytes(response.result) == b""


@pytest.mark.parametrize(
    "members", [{"result": 1, "error": None}, {"result": None, "error": {"code": 1001, "message": "m"}}]
)
def test_response_of_an_old_style(members: dict[str, Any]) -> None:
    peer = Peer(framing="lines")
    peer.request("x")
    response = only(peer.receive(lines({"id": 1, **members})))
    assert (response.error is not None) == (members["error"] is not None)


def test_response_arrives_once() -> None:
    peer = Peer(framing="lines")
    peer.request("x")
    assert len(peer.receive(lines(*[{"jsonrpc": "2.0", "id": 1, "result": 1}] * 2))) == 1
    assert peer.unexpected_responses == 1


def test_forgotten_request() -> None:
    peer = Peer(framing="lines")
    id, _ = peer.request("x", waiter="w")
    assert (peer.forget(id), peer.forget(id)) == ("w", None)
    assert peer.receive(lines({"jsonrpc": "2.0", "id": 1, "result": 1})) == []


def test_close_returns_who_waits_and_forgets_who_asked() -> None:
    peer = Peer()
    request = only(peer.receive(lines(call(1))))
    peer.request("x", waiter="a")
    peer.request("x", waiter="b")
    assert peer.close() == ["a", "b"]
    assert peer.close() == []
    with pytest.raises(LookupError, match="its connection is closed"):
        peer.respond(request, None)


# -- batches


def test_batch_is_answered_when_all_of_it_is() -> None:
    peer = Peer()
    batch = [call(1), {"jsonrpc": "2.0", "method": "n"}, call(2), call(1), 7]
    first, note, second = peer.receive(b" " + lines(batch))
    assert isinstance(first, Request)
    assert isinstance(note, Notification)
    assert isinstance(second, Request)
    assert peer.respond(second, "two") == b""
    answers = json.loads(peer.fail(first, RpcError("draining")))
    assert [answer["id"] for answer in answers] == [1, None, 2, 1]
    assert ["result" in answer for answer in answers] == [False, False, True, False]


def test_batch_without_anything_wrong_is_answered_at_its_last_response() -> None:
    peer = Peer(framing="lines")
    arrivals = peer.receive(lines([call(1), call(2)]))
    requests = [arrival for arrival in arrivals if isinstance(arrival, Request)]
    assert peer.respond(requests[0], None) == b""
    assert len(json.loads(peer.respond(requests[1], None))) == 2


def test_batch_of_invalid_things_only() -> None:
    answers = json.loads(only(Peer().receive(lines([1, {"foo": "boo"}, call(3, params=1)]))).data)
    assert [answer["id"] for answer in answers] == [None, None, 3]


def test_batch_of_notifications_is_not_answered() -> None:
    arrivals = Peer().receive(lines([{"jsonrpc": "2.0", "method": "n"}] * 2))
    assert [type(arrival) for arrival in arrivals] == [Notification, Notification]


def test_batch_with_responses_in_it() -> None:
    peer = Peer(framing="lines")
    peer.request("x", waiter="w")
    batch = [{"jsonrpc": "2.0", "id": 1, "result": 5}, {"jsonrpc": "2.0", "id": 9, "result": 5}, call(1)]
    response, request = peer.receive(lines(batch))
    assert isinstance(response, Response)
    assert (response.waiter, bytes(response.result)) == ("w", b"5")
    assert isinstance(request, Request)
    assert json.loads(peer.respond(request, None)) == [{"jsonrpc": "2.0", "id": 1, "result": None}]
    peer.request("x")
    assert [type(arrival) for arrival in peer.receive(lines([{"jsonrpc": "2.0", "id": 2, "result": 5}]))] == [
        Response
    ]


def test_batch_is_bounded() -> None:
    taken = Peer().receive(lines([{"jsonrpc": "2.0", "method": "n"}] * MAX_BATCH))
    assert len(taken) == MAX_BATCH
    refusal = reply(Peer(), [{"jsonrpc": "2.0", "method": "n"}] * (MAX_BATCH + 1))
    assert refusal["id"] is None
    assert refusal["error"]["data"] == {
        "kind": "too_complex",
        "retryable": False,
        "limit": MAX_BATCH,
        "actual": MAX_BATCH + 1,
    }


# -- bounds of what is sent


def test_message_that_the_other_end_would_not_read_is_refused_before_it_is_sent() -> None:
    peer = Peer()
    peer.max_sent_bytes = 100
    request = only(peer.receive(lines(call(1))))
    long = "x" * 100
    for send in (
        lambda: peer.request("x", {"a": long}),
        lambda: peer.notify("x", {"a": long}),
        lambda: peer.respond(request, long),
    ):
        with pytest.raises(RpcError, match="at most 100 are allowed") as caught:
            send()
        assert caught.value.kind == "message_too_large"
    assert peer.outgoing == {}
    assert json.loads(peer.fail(request, caught.value))["error"]["code"] == 1002


def test_answers_to_a_batch_that_are_too_long_together_travel_one_by_one() -> None:
    peer = Peer()
    peer.max_sent_bytes = 120
    one, two = peer.receive(lines([call(1), call(2)]))
    assert isinstance(one, Request)
    assert isinstance(two, Request)
    peer.respond(one, "x" * 50)
    sent = peer.respond(two, "x" * 50).splitlines()
    assert [json.loads(line)[0]["id"] for line in sent] == [1, 2]


def test_raw_results_are_sent_as_they_are() -> None:
    peer = Peer()
    request = only(peer.receive(lines(call(1))))
    assert peer.respond(request, msgspec.Raw(b'{"a": 1}')) == b'{"jsonrpc":"2.0","id":1,"result":{"a": 1}}\n'
