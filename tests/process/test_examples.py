"""The programs under examples/ do what they say: the real Claude Code in front of the simulator (02.28)."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman_sim.remote import in_process
from dragoman_sim.script import Rule, Status, When

EXAMPLES = Path(__file__).parents[2] / "examples"
RULES = [
    Rule(When(model="sonnet", text="an easy one"), fault=Status(404, "not_found_error")),
    Rule(When(system="You are a security reviewer"), "Injection, first of all."),
    Rule(When(system="You are a poet"), "```python\nbreeze()\n```"),
    Rule(When(system="You are a critic"), "It does not scan."),
]


@pytest.fixture
def run(new_home: Callable[..., Any]) -> Iterator[Callable[[str], list[str]]]:
    """Run an example to its end and return what it printed."""
    with in_process(RULES) as sim:
        home = new_home()
        home.env |= {"ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": "sk-ant-api03-for-the-simulator"}

        def run(name: str) -> list[str]:
            command = [sys.executable, "-P", str(EXAMPLES / name)]
            done = subprocess.run(
                command, env=home.env, capture_output=True, text=True, timeout=100, check=False
            )
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout.splitlines()

        yield run


def test_every_example_has_a_test() -> None:
    here = Path(__file__).read_text()
    for file in EXAMPLES.glob("*.py"):
        assert f'run("{file.name}")' in here, file


def test_model_selection(run: Callable[[str], list[str]]) -> None:
    models, haiku, opus, sonnet = run("model_selection.py")
    assert models == "Models: opus, sonnet, haiku, fable"
    assert haiku.startswith("haiku  answered as claude-haiku-")
    assert opus.startswith("opus   answered as claude-opus-")
    assert sonnet.startswith("sonnet answered as claude-opus-")  # the first of its fallbacks


def test_custom_agents(run: Callable[[str], list[str]]) -> None:
    assert run("custom_agents.py") == [
        "Security presets: crypto_auditor, security_reviewer",
        "security_reviewer: Injection, first of all.",
        "poet, in code: breeze()",
        "critic: It does not scan.",
    ]
