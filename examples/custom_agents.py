"""Who answers: a preset, an agent of one's own, and one that asks another (02.28).

    python examples/custom_agents.py

Set ANTHROPIC_BASE_URL to a simulator (`dragoman sim`) to try it without an account.
"""

import tempfile

import dragoman
from dragoman.agents import AgentBuilder
from dragoman.content import extract_code_blocks
from dragoman.options import with_agent, with_agents, with_sonnet


def main() -> None:
    with dragoman.connect("custom_agents") as claude, tempfile.TemporaryDirectory() as folder:
        presets = claude.agent_list(group="security").data
        print("Security presets:", ", ".join(agent.name for agent in presets))

        # A preset is named, nothing more.
        answer = claude.query("What do you look for?", cwd=folder, agent="security_reviewer")
        print("security_reviewer:", answer.text)

        # One of our own, for this turn.
        name, poet = (
            AgentBuilder("poet")
            .with_description("Writes code that rhymes")
            .with_system_prompt("You are a poet who writes Python.")
            .with_tools([])
            .with_examples(["Write a haiku in Python"])
            .build()
        )
        options = with_agent(with_sonnet({"cwd": folder}), name, poet)
        answer = claude.query("Write a haiku in Python", **options, agent=name)
        for block in extract_code_blocks(answer.text, "python"):
            print(f"poet, in code: {block.code}")

        # Several: the one who answers may ask the others.
        critic = AgentBuilder("critic").with_system_prompt("You are a critic of verse.").build_definition()
        both = with_agents(options, {"critic": critic})
        answer = claude.query("Write another", **both, agent="critic")
        print("critic:", answer.text)


if __name__ == "__main__":
    main()
