"""How the settings put the domain column together."""

import asyncio
import logging
import time
from pathlib import Path

import pytest
from dragomand.domain import await_login, host_of
from dragomand.engine.admission import Admission, Asked
from dragomand.engine.admission.settings import DoorSettings
from dragomand.engine.auth import LOGIN, LOGIN_FILE, Auth
from dragomand.engine.errors import EngineError
from dragomand.settings import ClaudeSettings, Config, DirectSettings
from dragomand.upstream.interface import Failure


@pytest.mark.parametrize(
    ("config", "credential", "host"),
    [
        (Config(), "apiKey", "api.anthropic.com"),
        (Config(), "claudeLogin", "api.anthropic.com"),
        (Config(), "bedrock", "bedrock"),
        (Config(claude=ClaudeSettings(base_url="https://proxy.example:8443/v1")), "apiKey", "proxy.example"),
        (Config(direct=DirectSettings(cloud_url="https://vpc.example")), "vertex", "vpc.example"),
        (Config(direct=DirectSettings(cloud_url="https://vpc.example")), "apiKey", "api.anthropic.com"),
    ],
)
def test_one_providers_failures_are_not_anothers(config: Config, credential: str, host: str) -> None:
    assert host_of(config, credential) == host


async def test_what_waits_for_another_login_goes_on_when_somebody_has_logged_in(tmp_path: Path) -> None:
    """Nobody has to restart the daemon, or to wait for the next try."""
    file = tmp_path / LOGIN_FILE
    file.write_text("one")
    auth = Auth(api_key=None, environment={}, claude_config_dir=str(tmp_path))
    door = Admission(DoorSettings(), clock=time.monotonic)
    await_login(auth, door, logging.getLogger("test"))
    assert not door.is_refused(LOGIN)
    async with door.admit_call(Asked(client="c", credential=LOGIN)) as permit:
        door.hearing.failed(permit, Failure("auth", "OAuth token has expired", status=401))
    assert door.is_refused(LOGIN)
    inside = asyncio.Event()

    async def job() -> None:
        async with door.admit_call(Asked(client="c", credential=LOGIN, priority="batch")):
            inside.set()

    task = asyncio.create_task(job())
    auth.require_claude_code()
    with pytest.raises(EngineError, match="refused the credential"):
        async with door.admit_call(Asked(client="c", credential=LOGIN)):
            raise AssertionError
    assert not inside.is_set()
    (tmp_path / "fresh").write_text("another")
    (tmp_path / "fresh").replace(file)
    auth.require_claude_code()
    async with asyncio.timeout(10):
        await task
    assert not door.is_refused(LOGIN)
    door.close()
