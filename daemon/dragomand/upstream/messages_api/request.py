"""What is sent: the body of a request, and its headers. Pure."""

from typing import Any

import msgspec
from dragoman_protocol.content import Prompt
from dragoman_protocol.query import ApiOptions, ThinkingChoice

from dragomand.upstream.interface import HistoryMessage, RunSpec
from dragomand.upstream.messages_api.settings import DirectSettings
from dragomand.upstream.models import resolve

API_VERSION = "2023-06-01"

_encode = msgspec.json.Encoder().encode

_NATIVE = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref",
    "$defs", "definitions", "title", "description", "default", "format",
}  # fmt: skip
_NOT_CHECKED_BY_NAME = {"properties", "$defs", "definitions"}
_OPAQUE = {"enum", "const", "default", "required", "type", "title", "description", "format", "$ref"}


def headers_of(api_key: str) -> dict[str, str]:
    """Return the headers of every request."""
    return {
        "x-api-key": api_key,
        "anthropic-version": API_VERSION,
        "content-type": "application/json",
        "user-agent": "dragoman",
    }


def message_body(spec: RunSpec, messages: list[HistoryMessage], settings: DirectSettings) -> bytes:
    """Return the body of `POST /v1/messages` that asks for a stream."""
    api = spec.api or ApiOptions()
    cache = None
    if api.cache is not None:
        cache = {"type": "ephemeral"} | ({"ttl": api.cache_ttl} if api.cache_ttl else {})
    body: dict[str, Any] = {
        "model": resolve(spec.model or settings.model),
        "max_tokens": api.max_tokens or settings.max_tokens,
        "messages": [_message(message) for message in messages],
        "stream": True,
    }
    system = system_of(spec)
    if system:
        marked = {"type": "text", "text": system, "cache_control": cache}
        body["system"] = [marked] if cache else system
    if cache and api.cache == "conversation":
        _mark_last(body["messages"], cache)
    if spec.thinking is not None:
        body["thinking"] = _thinking(spec.thinking)
    if api.temperature is not None:
        body["temperature"] = api.temperature
    if api.stop_sequences:
        body["stop_sequences"] = api.stop_sequences
    if spec.output_schema is not None and is_native(spec.output_schema):
        body["output_config"] = {"format": {"type": "json_schema", "schema": spec.output_schema}}
    return _encode(body)


def count_body(spec: RunSpec, prompt: Prompt, settings: DirectSettings) -> bytes:
    """Return the body of `POST /v1/messages/count_tokens`."""
    messages = [*spec.history, HistoryMessage("user", prompt)]
    body: dict[str, Any] = {
        "model": resolve(spec.model or settings.model),
        "messages": [_message(message) for message in messages],
    }
    system = system_of(spec)
    if system:
        body["system"] = system
    return _encode(body)


def system_of(spec: RunSpec) -> str:
    """Return the whole system prompt; empty if there is none."""
    return "\n\n".join(text for text in (spec.system_prompt, spec.append_system_prompt) if text)


def is_native(schema: Any) -> bool:
    """Tell whether the API itself can hold the model to *schema*: objects that are closed, and no bounds.

    It refuses a request with a schema beyond that; the model is then held to it by words and by checking.
    """
    if not isinstance(schema, dict):
        return False
    if not schema.keys() <= _NATIVE:
        return False
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False:
            return False
    elif "additionalProperties" in schema:
        return False
    return all(_is_native_part(word, value) for word, value in schema.items())


def _is_native_part(word: str, value: Any) -> bool:
    if word in _OPAQUE or value is False:
        return word != "$ref" or (isinstance(value, str) and value.startswith("#/"))
    if word in _NOT_CHECKED_BY_NAME:
        return isinstance(value, dict) and all(is_native(each) for each in value.values())
    if word == "anyOf":
        return isinstance(value, list) and all(is_native(each) for each in value)
    return is_native(value)


def _message(message: HistoryMessage) -> dict[str, Any]:
    return {"role": message.role, "content": message.content}


def _mark_last(messages: list[dict[str, Any]], cache: dict[str, str]) -> None:
    """Let the cache reach to the end of the last message."""
    content = messages[-1]["content"]
    blocks: list[dict[str, Any]] = msgspec.to_builtins(content)
    if isinstance(content, str):
        blocks = [{"type": "text", "text": content}]
    if blocks:
        blocks[-1]["cache_control"] = cache
    messages[-1]["content"] = blocks


def _thinking(thinking: ThinkingChoice) -> dict[str, Any]:
    chosen: dict[str, Any] = {"type": thinking.type}
    if thinking.budget_tokens is not None:
        chosen["budget_tokens"] = thinking.budget_tokens
    if thinking.display is not None:
        chosen["display"] = thinking.display
    return chosen
