"""Answers as values of Python types (00.54)."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import dragoman
import msgspec
import pydantic
import pytest
from dragoman import aio, errors
from dragoman.output import schema_of, typed
from dragoman_protocol.query import QueryRunResult, StructuredAnswer
from dragoman_sim.remote import in_process
from dragoman_sim.script import Rule, When


class Struct(msgspec.Struct):
    name: str
    sizes: list[int]


@dataclass
class Data:
    name: str
    sizes: list[int]


class Typed(TypedDict):
    name: str
    sizes: list[int]


class Model(pydantic.BaseModel):
    name: str
    sizes: list[int]


VALUE = {"name": "moon", "sizes": [1, 2]}


def result(value: Any) -> QueryRunResult:
    structured = StructuredAnswer(value=value, attempts=[])
    return QueryRunResult(session_id="s", turn_id="t", text="", upstream="messagesApi", structured=structured)


@pytest.mark.parametrize("kind", [Struct, Data, Typed, Model])
def test_a_type_has_a_schema_and_its_value_comes_back(kind: Any) -> None:
    schema = schema_of(kind)
    described = schema.get("$defs", {}).get(kind.__name__, schema)
    assert described["properties"]["sizes"]["items"] == {"type": "integer"}
    found = typed(result(VALUE), kind).structured
    assert found is not None
    assert found.value == kind(**VALUE)


def test_builtins_and_schemas() -> None:
    assert schema_of(list[int]) == {"type": "array", "items": {"type": "integer"}}
    assert typed(result([1]), list[int]).structured == StructuredAnswer(value=[1], attempts=[])
    assert schema_of({"type": "string"}) == {"type": "string"}
    assert typed(result("x"), {"type": "string"}) == result("x")


def test_without_a_value_nothing_is_made() -> None:
    plain = QueryRunResult(session_id="s", turn_id="t", text="", upstream="messagesApi")
    assert typed(plain, Struct) is plain


@pytest.mark.parametrize("kind", [Struct, Model])
def test_what_does_not_fit_the_type(kind: Any) -> None:
    with pytest.raises(errors.AnswerError, match="but not"):
        typed(result({"name": 1}), kind)


def test_a_type_without_a_schema() -> None:
    with pytest.raises(TypeError):
        schema_of(object())


def test_the_client_needs_no_pydantic() -> None:
    code = "import dragoman.sync, sys; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.fixture
def world(place: Any) -> Iterator[Any]:
    rules = [
        Rule(When(text="twice"), "I think it is the moon.", times=1),
        Rule(When(text="does not fit"), '{"name": "moon", "sizes": [1, 2]}'),
        Rule(When(text="at once"), '{"name": "moon", "sizes": [1, 2]}'),
        Rule(When(), "never"),
    ]
    with in_process(rules) as sim:
        place.env |= {"ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": "sk-ant-api03-anything"}
        place.sim = sim
        yield place


def test_through_the_real_daemon(world: Any) -> None:
    with dragoman.connect("tests", env=world.env) as claude:
        answer = claude.query("at once", output=Struct, upstream="messagesApi")
        assert answer.structured.value == Struct("moon", [1, 2])
        assert (answer.upstream, answer.upstream_reason) == ("messagesApi", "asked for")
        answer = claude.query("twice", output=Model, cwd=None, tools=[])
        assert answer.structured.value == Model(name="moon", sizes=[1, 2])
        first, second = answer.structured.attempts
        assert "no JSON" in first.error
        assert answer.usage.input_tokens == first.usage.input_tokens + second.usage.input_tokens
        assert answer.cost_usd == pytest.approx(first.cost_usd + second.cost_usd)
        with pytest.raises(errors.SchemaMismatchError) as caught:
            claude.query("something else", output=Struct, upstream="messagesApi", output_attempts=1)
        assert (caught.value.data.path, caught.value.data.text, caught.value.data.attempts) == (
            "$",
            "never",
            1,
        )
        counted = claude.query_count_tokens(prompt="x" * 400)
        assert counted.input_tokens > 100


def test_the_asynchronous_client_too(world: Any) -> None:
    async def ask() -> QueryRunResult:
        async with aio.connect("tests", env=world.env) as claude:
            return await claude.query("at once", output=Data, upstream="messagesApi")

    answer = asyncio.run(ask())
    assert answer.structured is not None
    assert answer.structured.value == Data("moon", [1, 2])


def test_through_the_real_claude_code(world: Any, tmp_path: Path) -> None:
    with dragoman.connect("tests", env=world.env) as claude:
        answer = claude.query("twice", output=Struct, cwd=tmp_path)
        assert answer.structured.value == Struct("moon", [1, 2])
        assert (answer.upstream, answer.upstream_reason) == (
            "claudeCode",
            "tools may be used (`tools` is not [])",
        )
        assert ["no JSON" in each.error if each.error else None for each in answer.structured.attempts] == [
            True,
            None,
        ]
        assert answer.usage.output_tokens == sum(
            each.usage.output_tokens for each in answer.structured.attempts
        )
    asked = [each for each in world.sim.requests() if each["path"] == "/v1/messages"]
    assert all(each["headers"]["user-agent"].startswith("claude-cli/") for each in asked)
    assert "JSON Schema" in str(asked[0]["body"]["system"])
