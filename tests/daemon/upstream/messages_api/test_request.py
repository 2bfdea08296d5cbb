"""What is sent."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from dragoman_protocol.content import DocumentBlock, ImageBlock, TextBlock
from dragoman_protocol.query import ApiOptions, ThinkingChoice
from dragomand.upstream.interface import HistoryMessage, RunSpec
from dragomand.upstream.messages_api import DirectSettings
from dragomand.upstream.messages_api.request import count_body, headers_of, is_native, message_body

ASKED = HistoryMessage("user", "hi")


def body(messages: list[HistoryMessage] | None = None, **choices: Any) -> dict[str, Any]:
    spec = RunSpec(**{"session_id": "s", "cwd": Path("/"), **choices})
    made: dict[str, Any] = msgspec.json.decode(message_body(spec, messages or [ASKED], DirectSettings()))
    return made


def test_nothing_chosen() -> None:
    assert body() == {
        "model": "claude-sonnet-5-5",
        "max_tokens": 16_000,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }


@pytest.mark.parametrize(
    ("name", "full"),
    [("opus", "claude-opus-5-5"), ("haiku", "claude-haiku-5-5"), ("claude-next-1", "claude-next-1")],
)
def test_models_by_alias_or_in_full(name: str, full: str) -> None:
    assert body(model=name)["model"] == full


def test_everything_chosen() -> None:
    thinking = ThinkingChoice(type="enabled", budget_tokens=1024, display="summarized")
    api = ApiOptions(
        max_tokens=99,
        temperature=0.5,
        stop_sequences=["END"],
    )
    made = body(system_prompt="be brief", append_system_prompt="JSON", api=api, thinking=thinking)
    assert made["max_tokens"] == 99
    assert made["thinking"] == {"type": "enabled", "budget_tokens": 1024, "display": "summarized"}
    assert (made["temperature"], made["stop_sequences"]) == (0.5, ["END"])
    assert made["system"] == "be brief\n\nJSON"
    assert body(thinking=ThinkingChoice(type="adaptive"))["thinking"] == {"type": "adaptive"}


IMAGE = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
PAPER = {"type": "url", "url": "https://example.com/a.pdf"}


def test_images_and_documents_go_through_as_they_are() -> None:
    prompt = [TextBlock(text="look"), ImageBlock(source=IMAGE), DocumentBlock(source=PAPER, title="T")]
    made = body(
        [HistoryMessage("user", "a"), HistoryMessage("assistant", "b"), HistoryMessage("user", prompt)]
    )
    assert [message["role"] for message in made["messages"]] == ["user", "assistant", "user"]
    assert made["messages"][2]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image", "source": IMAGE},
        {"type": "document", "source": PAPER, "title": "T"},
    ]


@pytest.mark.parametrize("ttl", [None, "1h"])
def test_the_system_prompt_is_cached(ttl: Any) -> None:
    made = body(system_prompt="long", api=ApiOptions(cache="system", cache_ttl=ttl))
    control = {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})
    assert made["system"] == [{"type": "text", "text": "long", "cache_control": control}]
    assert made["messages"] == [{"role": "user", "content": "hi"}]


def test_the_conversation_is_cached_up_to_its_end() -> None:
    control = {"type": "ephemeral"}
    made = body(api=ApiOptions(cache="conversation"))
    assert "system" not in made
    assert made["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": control}]}
    ]
    blocks = [TextBlock(text="look"), ImageBlock(source=IMAGE)]
    made = body([HistoryMessage("user", blocks)], api=ApiOptions(cache="conversation"))
    assert made["messages"][0]["content"][-1] == {"type": "image", "source": IMAGE, "cache_control": control}
    assert "cache_control" not in made["messages"][0]["content"][0]
    assert (
        body([HistoryMessage("user", [])], api=ApiOptions(cache="conversation"))["messages"][0]["content"]
        == []
    )


CLOSED = {"type": "object", "additionalProperties": False, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "native"),
    [
        ({**CLOSED, "properties": {"a": {"type": "integer"}}}, True),
        ({**CLOSED, "properties": {"a": {"type": "array", "items": {"enum": [1, None]}}}}, True),
        ({**CLOSED, "properties": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/x"}]}},
          "$defs": {"x": {}}}, True),
        ({**CLOSED, "properties": {"a": {"type": "integer", "minimum": 1}}}, False),
        ({**CLOSED, "properties": {"a": {"type": "object", "properties": {}}}}, False),
        ({**CLOSED, "properties": {"a": {"$ref": "https://example.com/x"}}}, False),
        ({"type": "object", "properties": {}}, False),
        ({"type": "array", "items": {"pattern": "x"}}, False),
        ({"type": "string", "additionalProperties": False}, False),
        ({"anyOf": [True]}, False),
    ],
)  # fmt: skip
def test_the_api_holds_the_model_to_schemas_that_it_understands(schema: dict[str, Any], native: bool) -> None:
    assert is_native(schema) is native
    sent = body(output_schema=schema).get("output_config")
    assert sent == ({"format": {"type": "json_schema", "schema": schema}} if native else None)


def test_counting() -> None:
    spec = RunSpec(
        session_id="s",
        cwd=Path("/"),
        model="opus",
        system_prompt="x",
        history=(ASKED, HistoryMessage("assistant", "b")),
    )
    made = msgspec.json.decode(count_body(spec, "more", DirectSettings()))
    assert made == {
        "model": "claude-opus-5-5",
        "system": "x",
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "more"},
        ],
    }
    assert "system" not in msgspec.json.decode(
        count_body(RunSpec(session_id="", cwd=Path("/")), "x", DirectSettings())
    )


def test_headers() -> None:
    headers = headers_of("key")
    assert headers["x-api-key"] == "key"
    assert "authorization" not in headers
