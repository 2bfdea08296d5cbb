"""How the clouds name models."""

import pytest
from dragoman_protocol.model import MODELS
from dragomand.upstream.messages_api.cloud_model import (
    bedrock_model,
    foundation_model,
    pinned,
    prefix_of,
    vertex_model,
)

ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-5-5"
PINS = {"ANTHROPIC_DEFAULT_OPUS_MODEL": "claude-opus-4-8[1m]", "ANTHROPIC_DEFAULT_SONNET_MODEL": f" {ARN} "}


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.alias)
def test_every_alias_has_an_id_in_both(row) -> None:
    for name in (row.alias, row.model):
        assert bedrock_model(name, "", "us-west-2", {}) == f"us.anthropic.{row.model}"
        assert vertex_model(name, {}) == row.model


@pytest.mark.parametrize(
    "name",
    [
        "us.anthropic.claude-opus-5-5",
        "anthropic.claude-opus-5-5",
        "claude-3-haiku",
        ARN,
        "meta.llama3-8b-v1:0",
    ],
)
def test_other_names_are_passed_on(name: str) -> None:
    assert bedrock_model(name, "eu", "us-east-1", {}) == name
    assert vertex_model(name, {}) == name


@pytest.mark.parametrize(
    ("region", "prefix"),
    [
        ("us-east-1", "us"),
        ("us-gov-west-1", "us-gov"),
        ("eu-central-1", "eu"),
        ("ap-northeast-1", "global"),
        ("europe", "global"),
        ("", "global"),
    ],
)
def test_the_profiles_of_a_region(region: str, prefix: str) -> None:
    assert prefix_of(region) == prefix
    assert bedrock_model("haiku", "", region, {}) == f"{prefix}.anthropic.claude-haiku-5-5"
    assert bedrock_model("haiku", "apac", region, {}) == "apac.anthropic.claude-haiku-5-5"


def test_claude_codes_own_variables_say_what_an_alias_means() -> None:
    assert pinned("opus", PINS) == "claude-opus-4-8"
    assert pinned("claude-opus-5-5", PINS) is None
    assert pinned("haiku", PINS) is None
    assert bedrock_model("sonnet", "", "us-east-1", PINS) == ARN
    assert bedrock_model("opus", "", "us-east-1", {"ANTHROPIC_DEFAULT_OPUS_MODEL": "claude-opus-5-5"}) == (
        "us.anthropic.claude-opus-5-5"
    )
    assert vertex_model("opus", PINS) == "claude-opus-4-8"


@pytest.mark.parametrize(
    ("model", "counted"),
    [
        ("us.anthropic.claude-opus-5-5", "anthropic.claude-opus-5-5"),
        ("anthropic.claude-opus-5-5", "anthropic.claude-opus-5-5"),
        (ARN, ARN),
        ("meta.llama3-8b-v1:0", "meta.llama3-8b-v1:0"),
    ],
)
def test_tokens_are_counted_for_the_model_behind_a_profile(model: str, counted: str) -> None:
    assert foundation_model(model) == counted
