"""How the settings put the domain column together."""

import pytest
from dragomand.domain import host_of
from dragomand.settings import ClaudeSettings, Config, DirectSettings


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
