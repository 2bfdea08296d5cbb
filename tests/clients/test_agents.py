"""The builder of agents (02.14 to 02.16, 02.24)."""

from dragoman.agents import AgentBuilder
from dragoman_protocol.agent import AgentDefinition


def test_the_least() -> None:
    assert AgentBuilder("helper").build() == (
        "helper",
        AgentDefinition(description="Custom agent: helper", prompt="You are a helpful assistant."),
    )


def test_everything() -> None:
    builder = (
        AgentBuilder("reviewer")
        .with_description("Reviews")
        .with_system_prompt("You review.")
        .with_tools(("Read", "Grep"))
        .with_examples(["Look at a.py"])
        .with_model("opus")
        .with_max_turns(4)
        .with_effort("high")
    )
    assert builder.build_definition() == AgentDefinition(
        description="Reviews",
        prompt="You review.",
        tools=["Read", "Grep"],
        examples=["Look at a.py"],
        model="opus",
        max_turns=4,
        effort="high",
    )
    assert builder.build() == ("reviewer", builder.build_definition())


def test_tools_and_examples_are_there_only_when_they_were_set() -> None:
    plain = AgentBuilder("a").build_definition()
    assert (plain.tools, plain.examples) == (None, None)
    assert AgentBuilder("a").with_tools([]).build_definition().tools == []


def test_a_half_built_one_can_be_shared() -> None:
    half = AgentBuilder("a").with_description("d")
    one, other = half.with_tools(["Read"]), half.with_tools(["Write"])
    assert one.build_definition().tools == ["Read"]
    assert other.build_definition().tools == ["Write"]
    assert half.build_definition().tools is None
