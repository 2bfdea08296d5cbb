"""`dragoman gateway`."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from dragoman_protocol.gateway import (
    GatewayRevokeResult,
    GatewayTokenResult,
    GatewayTokensResult,
    IssuedToken,
)
from dragoman_protocol.limits import CallCounts
from dragoman_protocol.session import Usage

SOCKET = GatewayTokenResult(
    token_id="0a", token="dragoman-0a-x", base_url="http://dragoman.invalid", name="it's; mine",
    unix_socket="/run/with space/gw-1.sock",
)  # fmt: skip
PORT = GatewayTokenResult(token_id="0b", token="dragoman-0b-y", base_url="http://127.0.0.1:4000", name="m")


@pytest.fixture
def served(scripted: Any, home: Any) -> Any:
    scripted.listen(home.paths.socket)
    return scripted


def sourced(exports: str) -> dict[str, str]:
    """What a shell has after evaluating it, of what counts."""
    program = f"export ANTHROPIC_API_KEY=k ANTHROPIC_UNIX_SOCKET=old\n{exports}\nenv -0"
    done = subprocess.run(["/bin/sh", "-euc", program], env={}, capture_output=True, text=True, check=True)
    pairs = (line.partition("=") for line in done.stdout.split("\0") if line.startswith("ANTHROPIC"))
    return {name: value for name, _, value in pairs}


def test_a_token_for_the_shell(run: Callable[..., Any], served: Any) -> None:
    served.answers("gateway/token", SOCKET)
    done = run("gateway", "token", "--name", "it's; mine")
    assert done.status == 0
    assert sourced(done.out) == {
        "ANTHROPIC_BASE_URL": "http://dragoman.invalid",
        "ANTHROPIC_AUTH_TOKEN": "dragoman-0a-x",
        "ANTHROPIC_UNIX_SOCKET": "/run/with space/gw-1.sock",
    }


def test_a_token_for_a_port(run: Callable[..., Any], served: Any) -> None:
    served.answers("gateway/token", PORT)
    assert sourced(run("gateway", "token", "--tcp").out) == {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:4000",
        "ANTHROPIC_AUTH_TOKEN": "dragoman-0b-y",
    }
    assert json.loads(run("gateway", "token", "--tcp", "--json").out)["tokenId"] == "0b"


def test_the_tokens(run: Callable[..., Any], served: Any) -> None:
    served.answers("gateway/tokens", GatewayTokensResult())
    assert run("gateway", "tokens").out == "No program has a token.\n"
    counts = CallCounts(calls=3, failed=1, usage=Usage(input_tokens=10, output_tokens=20))
    found = [
        IssuedToken(token_id="0a", name="mine", created_at=1, tcp=False, counts=counts),
        IssuedToken(token_id="0b", name="m", created_at=2, tcp=True, counts=CallCounts()),
    ]
    served.answers("gateway/tokens", GatewayTokensResult(data=found))
    assert run("gateway", "tokens").out.splitlines() == [
        "0a  mine  socket  3 calls (1 failed), 10 tokens in, 20 out",
        "0b  m  port  0 calls, 0 tokens in, 0 out",
    ]
    assert len(json.loads(run("gateway", "tokens", "--json").out)["data"]) == 2


@pytest.mark.parametrize(("revoked", "status"), [(True, 0), (False, 1)])
def test_revoking(run: Callable[..., Any], served: Any, revoked: bool, status: int) -> None:
    served.answers("gateway/revoke", GatewayRevokeResult(revoked=revoked))
    done = run("gateway", "revoke", "0a")
    assert done.status == status
    assert "0a" in (done.out if revoked else done.err)
    assert json.loads(run("gateway", "revoke", "0a", "--json").out) == {"revoked": revoked}
