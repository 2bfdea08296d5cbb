"""What is let in."""

import json
import time

import pytest
from dragomand.engine.admission import Admission, DoorSettings
from dragomand.engine.call import Grant
from dragomand.engine.calls import Calls
from dragomand.gateway.gate import MOST_BODY, Asked, Refusal, let_in


@pytest.fixture
def calls() -> Calls:
    admission = Admission(DoorSettings(max_queued=1), clock=time.monotonic)
    return Calls(admission, clock=time.time, queue_timeout_s=1)


def asked(
    token: str, method: str = "POST", path: str = "/v1/messages", query: str = "", port: int | None = None,
    **headers: str,
) -> Asked:  # fmt: skip
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Asked(method, path, query, {"x-api-key": token, **named}, port)


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("POST", "/v1/messages", ""),
        ("POST", "/v1/messages", "beta=true"),
        ("POST", "/v1/messages/count_tokens", "beta=true"),
        ("GET", "/v1/models", "limit=20&after_id=x"),
        ("GET", "/v1/models/claude-opus-5-5", ""),
    ],
)
def test_let_in(calls: Calls, method: str, path: str, query: str) -> None:
    grant, token = calls.grant()
    assert let_in(asked(token, method, path, query), calls) is grant
    bearer = Asked(method, path, query, {"Authorization": f"Bearer {token}"}, None)
    assert let_in(bearer, calls) is grant


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/v1/messages", ""),
        ("HEAD", "/", ""),
        ("OPTIONS", "/v1/messages", ""),
        ("DELETE", "/v1/models/x", ""),
        ("POST", "/v1/messages/batches", ""),
        ("POST", "/v1/files", ""),
        ("POST", "/v1/organizations/api_keys", ""),
        ("POST", "//evil.example/v1/messages", ""),
        ("GET", "/v1/models/../files", ""),
        ("GET", "/v1/models/a%2f..%2f..", ""),
        ("POST", "/v1/messages\n", ""),
        ("POST", "/v1/messages", "a=%0d%0a"),
        ("POST", "/v1/messages", "a" * 300),
    ],
)
def test_other_paths_are_not_there(calls: Calls, method: str, path: str, query: str) -> None:
    refused = let_in(asked(calls.grant()[1], method, path, query), calls)
    assert isinstance(refused, Refusal)
    assert refused.status == 404


def test_tokens(calls: Calls) -> None:
    grant, token = calls.grant()
    other = token.replace("dragoman", "other")
    for wrong in ("", "x", token[:-1], token + "x", other, "dragoman--", "\udc80"):
        refused = let_in(asked(wrong), calls)
        assert isinstance(refused, Refusal), wrong
        assert refused.status == 401
        assert json.loads(refused.body)["error"]["type"] == "authentication_error"
    assert calls.revoke(grant.grant_id)
    assert isinstance(let_in(asked(token), calls), Refusal)


@pytest.mark.parametrize("header", [{"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}])
def test_web_pages(calls: Calls, header: dict[str, str]) -> None:
    refused = let_in(asked(calls.grant()[1], **header), calls)
    assert isinstance(refused, Refusal)
    assert refused.status == 403


def test_hosts_on_a_port(calls: Calls) -> None:
    grant, token = calls.grant(tcp=True)
    for host in ("127.0.0.1:4000", "localhost:4000"):
        assert let_in(asked(token, port=4000, Host=host), calls) is grant
    for host in ("127.0.0.1", "127.0.0.1:4001", "evil.example:4000", ""):
        assert isinstance(let_in(asked(token, port=4000, Host=host), calls), Refusal)
    private, token = calls.grant()
    assert isinstance(private, Grant)
    assert isinstance(let_in(asked(token, port=4000, Host="localhost:4000"), calls), Refusal)


def test_sizes(calls: Calls) -> None:
    grant, token = calls.grant()
    assert let_in(asked(token, Content_Length=str(MOST_BODY)), calls) is grant
    refused = let_in(asked(token, Content_Length=str(MOST_BODY + 1)), calls)
    assert isinstance(refused, Refusal)
    assert refused.status == 413
