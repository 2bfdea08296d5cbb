"""What both clouds have in common: nothing happens before the first call, and nothing tells a secret."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dragomand.outside import cloud_endpoint
from dragomand.settings import Config
from dragomand.settings import DirectSettings as Settings
from dragomand.upstream.messages_api.bedrock import Bedrock
from dragomand.upstream.messages_api.endpoint import CloudSettings, Endpoint
from dragomand.upstream.messages_api.vertex import Vertex

SECRET = "made-up-secret"


def clouds(settings: CloudSettings) -> list[Endpoint]:
    return [Bedrock(settings), Vertex(settings)]


def test_each_has_its_stream_its_models_and_its_status() -> None:
    found = clouds(CloudSettings(region="eu-west-1"))
    assert [cloud.content_type for cloud in found] == [
        "application/vnd.amazon.eventstream",
        "text/event-stream",
    ]
    assert [cloud.status().provider for cloud in found] == ["bedrock", "vertex"]
    assert [cloud.status().region for cloud in found] == ["eu-west-1", "eu-west-1"]
    assert [cloud.model("opus") for cloud in found] == ["eu.anthropic.claude-opus-5-5", "claude-opus-5-5"]


def test_the_environment_is_not_shown() -> None:
    settings = CloudSettings(environment={"AWS_BEARER_TOKEN_BEDROCK": SECRET, "HOME": "/"})
    assert SECRET not in repr(settings)
    for cloud in clouds(settings):
        assert SECRET not in repr(cloud) + repr(cloud.status())


@pytest.mark.parametrize("name", ["Bedrock", "Vertex"])
def test_no_library_is_loaded_before_the_first_call(name: str) -> None:
    code = (
        "import sys\n"
        f"from dragomand.upstream.messages_api.{name.lower()} import {name}\n"
        "from dragomand.upstream.messages_api import CloudSettings\n"
        f"{name}(CloudSettings()).status()\n"
        "print([each for each in ('botocore', 'google.auth', 'anthropic', 'aiohttp') if each in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("provider", "environment", "kind"),
    [
        ("auto", {}, None),
        ("auto", {"CLAUDE_CODE_USE_BEDROCK": "1"}, Bedrock),
        ("auto", {"CLAUDE_CODE_USE_VERTEX": "true"}, Vertex),
        ("auto", {"CLAUDE_CODE_USE_VERTEX": "0"}, None),
        ("anthropic", {"CLAUDE_CODE_USE_BEDROCK": "1"}, None),
        ("bedrock", {}, Bedrock),
        ("vertex", {"CLAUDE_CODE_USE_BEDROCK": "1"}, Vertex),
    ],
)
def test_the_settings_come_before_the_variables(provider: Any, environment: Any, kind: Any) -> None:
    config = Config(direct=Settings(provider=provider, region="eu-west-1", project="p"))
    cloud = cloud_endpoint(config, environment)
    if kind is None:
        assert cloud is None
        return
    assert isinstance(cloud, kind)
    assert cloud.status().region == "eu-west-1"


NEVER_ANSWERS = """
import asyncio, os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
place = "127.0.0.1:%d" % server.getsockname()[1]
os.environ.update({
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://" + place, "AWS_METADATA_SERVICE_TIMEOUT": "600",
    "GCE_METADATA_HOST": place, "GCE_METADATA_IP": place, "GCE_METADATA_TIMEOUT": "600",
})
from dragomand.upstream.interface import UpstreamError
from dragomand.upstream.messages_api import CloudSettings
from dragomand.upstream.messages_api.bedrock import Bedrock
from dragomand.upstream.messages_api.vertex import Vertex

async def main():
    settings = CloudSettings(region="us-east-1", project="p", credential_timeout_s=3.0)
    for cloud in (Bedrock(settings), Vertex(settings)):
        try:
            await cloud.call(b'{"model": "m"}')
        except UpstreamError as error:
            print(error.failure.category, error.failure.message)
    server.settimeout(20)
    server.accept()  # somebody waits for an answer there

asyncio.run(main())
"""


def test_an_instance_that_says_nothing_keeps_neither_a_turn_nor_the_end(no_cloud: Path) -> None:
    """The services of an instance are asked in threads that wait for ten minutes here."""
    environment = {name: value for name, value in os.environ.items() if name != "AWS_EC2_METADATA_DISABLED"}
    environment.pop("NO_GCE_CHECK")
    done = subprocess.run(
        [sys.executable, "-c", NEVER_ANSWERS],
        capture_output=True, text=True, timeout=90, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("auth ")
        assert "gave no credential within 3 s" in line
