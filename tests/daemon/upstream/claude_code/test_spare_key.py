"""Two starts have one key exactly if nothing differs that cannot be changed later."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from dragomand.process.children import Command
from dragomand.upstream.claude_code.spare_key import key_of, world_of


@pytest.fixture
def command(tmp_path: Path) -> Command:
    (tmp_path / "project").mkdir()
    return Command(
        argv=["claude", "-p"],
        env={"PATH": "/bin"},
        cwd=str(tmp_path / "project"),
        secrets={"KEY": b"one"},
        open_files=100,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ["claude", "-p", "--tools="]},
        {"env": {"PATH": "/usr/bin"}},
        {"cwd": "/"},
        {"secrets": {"KEY": b"two"}},
        {"open_files": 200},
    ],
)
def test_everything_about_the_start_is_in_it(command: Command, change: dict[str, object]) -> None:
    first = key_of(command, {"systemPrompt": ["x"]}, None)
    assert key_of(replace(command), {"systemPrompt": ["x"]}, None) == first
    assert key_of(replace(command, **change), {"systemPrompt": ["x"]}, None) != first  # type: ignore[arg-type]
    assert key_of(command, {"systemPrompt": ["y"]}, None) != first
    assert "one" not in first


def test_a_commit_or_a_checkout_makes_another_key(command: Command) -> None:
    git = Path(command.cwd).parent / ".git"
    (git / "logs").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main")
    (git / "logs" / "HEAD").write_text("one commit\n")
    keys = {key_of(command, {}, command.cwd)}
    (git / "logs" / "HEAD").write_text("one commit\nanother commit\n")
    keys.add(key_of(command, {}, command.cwd))
    (git / "HEAD").write_text("ref: refs/heads/other")
    keys.add(key_of(command, {}, command.cwd))
    assert len(keys) == 3
    assert key_of(command, {}, None) == key_of(command, {}, None)


def test_an_upgrade_settings_or_another_credential_make_another_world(tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text("1.0")
    worlds = [world_of(str(program), str(tmp_path), b"key")]
    assert world_of(str(program), str(tmp_path), b"key") == worlds[0]
    (tmp_path / "new").write_text("1.1")
    os.replace(tmp_path / "new", program)
    worlds.append(world_of(str(program), str(tmp_path), b"key"))
    (tmp_path / "settings.json").write_text("{}")
    worlds.append(world_of(str(program), str(tmp_path), b"key"))
    worlds.append(world_of(str(program), str(tmp_path), None))
    assert len(set(worlds)) == 4
