"""Another program shares the key and the limits: the real daemon and commands, and any HTTP client."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman_sim.remote import Remote, in_process
from dragoman_sim.script import Script
from dragomand.upstream.claude_code.executable import find_bundled

KEY = "sk-ant-api03-of-the-daemon"
ASK = {"model": "claude-x", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}
PATIENCE_S = 60


@pytest.fixture(scope="module")
def sim() -> Iterator[Remote]:
    with in_process(Script(keys=[KEY])) as sim:
        yield sim


@pytest.fixture
def keyed(home: Any, sim: Remote) -> Any:
    home.env |= {"ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": KEY}
    sim.reset()
    return home


def call(made: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{made['baseUrl']}/v1/messages",
        json.dumps(ASK).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {made['token']}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def test_any_program_by_a_port(keyed: Any, sim: Remote) -> None:
    made = json.loads(keyed.dragoman("gateway", "token", "--name", "mine", "--tcp", "--json").stdout)
    assert call(made)["content"][0]["text"] == "You said: hi"
    assert KEY not in json.dumps(made)
    listed = keyed.dragoman("gateway", "tokens").stdout
    assert listed.startswith(f"{made['tokenId']}  mine  port  1 calls, ")
    assert keyed.dragoman("gateway", "revoke", made["tokenId"]).returncode == 0
    with pytest.raises((urllib.error.HTTPError, urllib.error.URLError, ConnectionError)) as refused:
        call(made)
    if isinstance(refused.value, urllib.error.HTTPError):
        assert refused.value.code == 401
        refused.value.close()
    assert len(sim.requests()) == 1


def test_a_claude_code_of_ones_own(keyed: Any, sim: Remote, tmp_path: Path) -> None:
    """As the help says: evaluate what is printed, and start Claude Code."""
    exports = keyed.dragoman("gateway", "token")
    assert exports.returncode == 0, exports.stderr
    program = f'{exports.stdout}\nexec "$0" -p "Say something."'
    done = subprocess.run(
        ["/bin/sh", "-ec", program, find_bundled() or ""],
        env={**keyed.env, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "You said: Say something." in done.stdout
    assert "socket  1 calls" in keyed.dragoman("gateway", "tokens").stdout
    assert {request["status"] for request in sim.requests()} == {200}


def test_without_a_key_there_is_none(home: Any) -> None:
    done = home.dragoman("gateway", "token")
    assert done.returncode == 1
    assert "only with an API key" in done.stderr
    assert "ANTHROPIC_API_KEY" in done.stderr
