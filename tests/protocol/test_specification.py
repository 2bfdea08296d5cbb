"""Section 7 of the JSON-RPC 2.0 specification, to the letter, in both framings."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from dragoman_protocol.codec import Framing, encode_frame
from dragoman_protocol.errors import RpcError
from dragoman_protocol.peer import Notification, Peer, Reply, Request

SECTION_7 = """
rpc call with positional parameters:

--> {"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}
<-- {"jsonrpc": "2.0", "result": 19, "id": 1}

--> {"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}
<-- {"jsonrpc": "2.0", "result": -19, "id": 2}

rpc call with named parameters:

--> {"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}
<-- {"jsonrpc": "2.0", "result": 19, "id": 3}

--> {"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}
<-- {"jsonrpc": "2.0", "result": 19, "id": 4}

a Notification:

--> {"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}

a Notification without parameters:

--> {"jsonrpc": "2.0", "method": "foobar"}

rpc call of non-existent method:

--> {"jsonrpc": "2.0", "method": "foobar", "id": "1"}
<-- {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}

rpc call with invalid JSON:

--> {"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]
<-- {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}

rpc call with invalid Request object:

--> {"jsonrpc": "2.0", "method": 1, "params": "bar"}
<-- {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}

rpc call Batch, invalid JSON:

--> [
  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
  {"jsonrpc": "2.0", "method"
]
<-- {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}

rpc call with an empty Array:

--> []
<-- {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}

rpc call with an invalid Batch (but not empty):

--> [1]
<-- [
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}
]

rpc call with invalid Batch:

--> [1,2,3]
<-- [
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}
]

rpc call Batch:

--> [
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]
<-- [
        {"jsonrpc": "2.0", "result": 7, "id": "1"},
        {"jsonrpc": "2.0", "result": 19, "id": "2"},
        {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
        {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
        {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
    ]

rpc call Batch (all notifications):

--> [
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
    ]
<-- //Nothing is returned for all notification batches
"""


def _examples() -> list[Any]:
    """Every `-->` of the text with its `<--`, if there is one."""
    found = []
    for match in re.finditer(r"^--> (.*?)(?=\n\n|\n<--)(?:\n<-- (.*?)(?=\n\n|\n$))?", SECTION_7, re.M | re.S):
        asked, answered = match[1], match[2]
        wanted = None if answered is None or answered.startswith("//") else json.loads(answered)
        found.append(pytest.param(asked, wanted, id=" ".join(asked.split())[:70]))
    return found


def _subtract(params: Any) -> int:
    if isinstance(params, list):
        return int(params[0] - params[1])
    return int(params["minuend"] - params["subtrahend"])


METHODS: dict[str, Callable[[Any], Any]] = {
    "subtract": _subtract,
    "sum": sum,
    "get_data": lambda _: ["hello", 5],
}


def answer(peer: Peer, data: bytes) -> bytes:
    """What the specification's server sends back for *data*."""
    sent = b""
    for arrival in peer.receive(data):
        if isinstance(arrival, Reply):
            sent += arrival.data
        elif isinstance(arrival, Request) and arrival.method in METHODS:
            params = json.loads(bytes(arrival.params) or b"null")
            sent += peer.respond(arrival, METHODS[arrival.method](params))
        elif isinstance(arrival, Request):
            sent += peer.fail(arrival, RpcError("method_not_found"))
        else:
            assert isinstance(arrival, Notification)
    return sent


def essence(response: dict[str, Any]) -> str:
    """A response without the wording of its error, which the specification leaves free."""
    response = json.loads(json.dumps(response))
    if "error" in response:
        assert response["error"].pop("message")
        response["error"].pop("data", None)
    return json.dumps(response, sort_keys=True)


def test_every_example_is_here() -> None:
    assert len(_examples()) == SECTION_7.count("\n-->") == 15


@pytest.mark.parametrize("framing", ["headers", "lines"])
@pytest.mark.parametrize(("asked", "wanted"), _examples())
def test_example(asked: str, wanted: Any, framing: Framing) -> None:
    text = asked if framing == "headers" else asked.replace("\n", " ")
    sent = answer(Peer(), encode_frame(text.encode(), framing))
    if wanted is None:
        assert sent == b""
        return
    body = sent.split(b"\r\n\r\n", 1)[1] if framing == "headers" else sent
    assert sent == encode_frame(body.rstrip(b"\n") if framing == "lines" else body, framing)
    got = json.loads(body)
    if isinstance(wanted, list):
        # "The Response objects being returned from a batch call MAY be returned in any order".
        assert sorted(map(essence, got)) == sorted(map(essence, wanted))
    else:
        assert essence(got) == essence(wanted)
