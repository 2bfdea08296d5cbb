"""Which credential is told, and when there is none (00.1, 00.10, 01.2, 01.3, 01.4, 01.5, 01.6, 01.21)."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dragoman_protocol.auth import CloudAuth
from dragomand.engine.auth import LOGIN, LOGIN_FILE, Auth
from dragomand.engine.errors import EngineError

KEY = "sk-ant-api03-secret"


def auth(folder: Path, api_key: str | None = None, **environment: str) -> Auth:
    return Auth(api_key=api_key, environment=environment, claude_config_dir=str(folder))


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("logged_in", [False, True])
def test_the_order_of_credentials(tmp_path: Path, key: str | None, logged_in: bool) -> None:
    if logged_in:
        (tmp_path / LOGIN_FILE).write_text("{}")
    status = auth(tmp_path, key).status()
    source = "environment" if key else "claudeCodeLogin" if logged_in else "none"
    assert (status.source, status.authenticated, status.token_present) == (
        source,
        source != "none",
        key is not None,
    )
    assert status.provider == "anthropic"
    assert (status.expires_at, status.time_until_expiry_hours) == (None, None)
    assert (status.next_step is None) == (source != "none")


def test_an_empty_key_is_none(tmp_path: Path) -> None:
    empty = auth(tmp_path, "")
    assert empty.api_key() is None
    assert not empty.status().token_present


def test_the_key_is_in_nothing_that_is_told(tmp_path: Path) -> None:
    holder = auth(tmp_path, KEY)
    assert KEY.encode() not in msgspec.json.encode(holder.status())
    assert KEY not in repr(holder)
    assert holder.api_key() == KEY


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
@pytest.mark.parametrize(
    ("variable", "provider"), [("CLAUDE_CODE_USE_BEDROCK", "bedrock"), ("CLAUDE_CODE_USE_VERTEX", "vertex")]
)
def test_other_providers_are_named_and_not_supported_for_claude_code(
    tmp_path: Path, variable: str, provider: str, value: str
) -> None:
    other = auth(tmp_path, KEY, **{variable: value})
    status = other.status()
    assert (status.provider, status.authenticated, status.source) == (provider, False, "none")
    with pytest.raises(EngineError, match=f"{provider} is not supported yet: unset {variable}") as caught:
        other.require()
    assert caught.value.kind == "auth_required"


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_a_variable_that_says_no(tmp_path: Path, value: str) -> None:
    assert auth(tmp_path, KEY, CLAUDE_CODE_USE_BEDROCK=value).status().provider == "anthropic"


def test_without_a_credential_the_next_step_is_named(tmp_path: Path) -> None:
    nobody = auth(tmp_path)
    with pytest.raises(EngineError) as caught:
        nobody.require()
    assert caught.value.kind == "auth_required"
    assert caught.value.data["next_step"] == nobody.status().next_step
    for words in ("ANTHROPIC_API_KEY", "dragoman daemon restart", "log in once with `claude`"):
        assert words in str(caught.value)


def test_a_login_after_the_start_is_found_when_it_is_needed(tmp_path: Path) -> None:
    late = auth(tmp_path / "claude")
    assert not late.status().authenticated
    (tmp_path / "claude").mkdir()
    (tmp_path / "claude" / LOGIN_FILE).write_text("never read")
    assert not late.status().authenticated  # from memory
    late.require()
    assert late.status().source == "claudeCodeLogin"


def test_another_login_is_found_when_the_one_before_was_refused(tmp_path: Path) -> None:
    """Looked for only then: Claude Code writes the file anew now and then, which means nothing."""
    file = tmp_path / LOGIN_FILE
    file.write_text("one")
    holder = auth(tmp_path)
    found: list[str] = []
    refused = False
    holder.on_other, holder.is_refused = found.append, lambda name: refused and name == LOGIN

    def write_anew() -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text("another")
        os.replace(fresh, file)

    write_anew()
    holder.require_claude_code()
    assert found == []
    refused = True
    holder.note_refused(LOGIN)
    holder.require_claude_code()
    assert found == [], "it is the refused one still"
    file.unlink()
    holder.require_claude_code()
    assert found == [], "where there is none, there is no other one"
    write_anew()
    for _ in range(2):
        holder.require_claude_code()
    assert found == ["claudeLogin"]


def test_a_first_login_is_told_and_a_key_is_not_looked_for(tmp_path: Path) -> None:
    found: list[str] = []
    first, with_key = auth(tmp_path), auth(tmp_path, KEY)
    for holder in (first, with_key):
        holder.on_other, holder.is_refused = found.append, lambda _name: True
        holder.note_refused("apiKey")
    (tmp_path / LOGIN_FILE).write_text("{}")
    with_key.require_claude_code()
    assert found == []
    first.require_claude_code()
    assert found == ["claudeLogin"]


# -- direct queries by way of a cloud


def clouded(folder: Path, api_key: str | None = None, **known: Any) -> Auth:
    cloud = CloudAuth(**{"provider": "bedrock", "state": "found", "source": "sso", **known})
    return Auth(api_key=api_key, environment={}, claude_config_dir=str(folder), cloud=lambda: cloud)


def test_without_a_cloud_direct_queries_need_the_key(tmp_path: Path) -> None:
    assert (auth(tmp_path, KEY).can_ask_directly, auth(tmp_path).can_ask_directly) == (True, False)
    assert auth(tmp_path).direct_provider == "anthropic"
    assert auth(tmp_path).status().messages_api is None
    assert auth(tmp_path).no_direct_answer is None


def test_a_clouds_credential_is_one(tmp_path: Path) -> None:
    holder = clouded(tmp_path)
    holder.require()
    status = holder.status()
    assert (status.authenticated, status.source, status.provider) == (True, "cloud", "bedrock")
    assert status.messages_api == CloudAuth(provider="bedrock", state="found", source="sso")
    assert (holder.can_ask_directly, holder.direct_provider) == (True, "bedrock")
    assert holder.no_direct_answer is None


@pytest.mark.parametrize(
    ("known", "authenticated"),
    [
        ({"state": "notAsked"}, True),  # there are signs of it
        ({"state": "notAsked", "source": None, "next_step": "ask"}, False),
        ({"state": "failed", "source": None, "next_step": "sign in"}, False),
    ],
)
def test_a_query_is_tried_whatever_is_known_of_the_cloud(
    tmp_path: Path, known: dict[str, Any], authenticated: bool
) -> None:
    holder = clouded(tmp_path, **known)
    holder.require()
    assert holder.can_ask_directly
    status = holder.status()
    assert status.authenticated == authenticated
    assert status.next_step == known.get("next_step")


def test_without_the_clouds_library(tmp_path: Path) -> None:
    holder = clouded(tmp_path, state="notInstalled", source=None, next_step="pip install it")
    assert (holder.can_ask_directly, holder.no_direct_answer) == (False, "pip install it")
    with pytest.raises(EngineError, match="pip install it") as caught:
        holder.require()
    assert caught.value.kind == "auth_required"
    assert not holder.status().authenticated


@pytest.mark.parametrize("key", [None, KEY])
def test_claude_code_beside_a_cloud(tmp_path: Path, key: str | None) -> None:
    holder = clouded(tmp_path, key)
    refusal = holder.claude_code_refusal()
    status = holder.status()
    if key is not None:
        assert refusal is None
        assert (status.source, status.provider) == ("environment", "anthropic")
        assert status.messages_api is not None
        return
    assert refusal is not None
    assert refusal.kind == "upstream_unavailable"
    assert "`tools: []`" in refusal.data["next_step"]
    (tmp_path / LOGIN_FILE).write_text("{}")
    assert holder.claude_code_refusal() is None
    assert holder.status().provider == "anthropic"


def test_claude_code_is_not_run_on_a_cloud_yet(tmp_path: Path) -> None:
    cloud = CloudAuth(provider="bedrock", state="found", source="sso")
    holder = Auth(
        api_key=KEY,
        environment={"CLAUDE_CODE_USE_BEDROCK": "1"},
        claude_config_dir=str(tmp_path),
        cloud=lambda: cloud,
    )
    holder.require()
    refusal = holder.claude_code_refusal()
    assert refusal is not None
    assert "unset CLAUDE_CODE_USE_BEDROCK" in refusal.data["next_step"]
    assert holder.status().source == "cloud"
