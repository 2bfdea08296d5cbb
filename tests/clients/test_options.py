import os
from pathlib import Path

import pytest
from dragoman.options import (
    QueryOptions,
    query_params,
    with_agent,
    with_agents,
    with_haiku,
    with_model,
    with_opus,
    with_sonnet,
)
from dragoman_protocol.agent import AgentDefinition
from dragoman_protocol.query import ForkChoice, QueryRunParams


def test_every_field_of_the_protocol_is_an_option() -> None:
    seconds = {"timeout_ms": "timeout_s", "queue_timeout_ms": "queue_timeout_s"}
    fields = {seconds.get(name, name) for name in QueryRunParams.__struct_fields__}
    assert fields - {"prompt", "partial_result_token"} == set(QueryOptions.__annotations__)


def test_the_working_folder_is_the_processs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert query_params("x", {}).cwd == os.getcwd()
    assert query_params("x", {"cwd": "sub"}).cwd == os.path.join(os.getcwd(), "sub")
    assert query_params("x", {"cwd": tmp_path / "other"}).cwd == str(tmp_path / "other")


def test_a_continued_session_keeps_its_folder() -> None:
    assert query_params("x", {"session_id": "s"}).cwd is None
    assert query_params("x", {"session_id": "s", "cwd": "/a"}).cwd == "/a"


def test_a_fork_is_named_by_its_id_or_with_a_turn() -> None:
    params = query_params("x", {"fork": "s"})
    assert (params.fork, params.cwd) == (ForkChoice(session_id="s"), None)
    fork = ForkChoice(session_id="s", at_turn_id="t")
    params = query_params("x", {"fork": fork, "cwd": "/a"})
    assert (params.fork, params.cwd) == (fork, "/a")


def test_no_folder_where_none_is_wanted() -> None:
    assert query_params("x", {"upstream": "messagesApi"}).cwd is None
    assert query_params("x", {"cwd": None, "tools": []}).cwd is None
    assert query_params("x", {"upstream": "messagesApi", "cwd": "/a"}).cwd == "/a"


def test_spans_are_in_seconds() -> None:
    params = query_params("x", {"timeout_s": 1.5, "queue_timeout_s": 0.0001}, 7)
    assert (params.timeout_ms, params.queue_timeout_ms, params.partial_result_token) == (1500, 1, 7)
    assert query_params("x", {"timeout_s": None}).timeout_ms is None  # type: ignore[typeddict-item]


@pytest.mark.parametrize("span", [float("inf"), float("nan"), 1e300, -1e300])
def test_a_span_that_no_clock_can_tell(span: float) -> None:
    with pytest.raises(ValueError, match="queue_timeout_s must be a number of seconds up to 1000000000, got"):
        query_params("x", {"queue_timeout_s": span})


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="modle"):
        query_params("x", {"modle": "opus"})  # type: ignore[typeddict-unknown-key]


def test_presets() -> None:
    """02.8 to 02.10."""
    assert with_opus() == {"model": "opus", "fallback_model": "sonnet", "max_turns": 10}
    assert with_sonnet() == {"model": "sonnet", "max_turns": 5}
    assert with_haiku() == {"model": "haiku", "max_turns": 3}


def test_a_preset_keeps_what_it_does_not_choose() -> None:
    options: QueryOptions = {"title": "T", "max_turns": 1}
    assert with_opus(options) == {"title": "T", "model": "opus", "fallback_model": "sonnet", "max_turns": 10}
    assert with_haiku(with_opus()) == {"model": "haiku", "max_turns": 3}
    assert options == {"title": "T", "max_turns": 1}


def test_any_model() -> None:
    """02.11."""
    assert with_model({}, "claude-x") == {"model": "claude-x"}
    assert with_model(with_opus(), "claude-x") == {"model": "claude-x", "max_turns": 10}
    assert with_model({}, "a", ["b", "c"]) == {"model": "a", "fallback_model": ["b", "c"]}


def test_agents_are_added() -> None:
    """02.12, 02.13."""
    one = AgentDefinition(description="1", prompt="p")
    two = AgentDefinition(description="2", prompt="p")
    options = with_agent({"title": "T"}, "a", one)
    assert options == {"title": "T", "agents": {"a": one}}
    assert with_agent(options, "b", two) == {"title": "T", "agents": {"a": one, "b": two}}
    assert with_agents({"a": one}) == {"agents": {"a": one}}
    assert with_agents(options, {"a": two}) == {"title": "T", "agents": {"a": two}}
    assert options["agents"] == {"a": one}
