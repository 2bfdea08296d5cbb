"""Agents as files: what is understood, what is refused and how it is said."""

import os
from pathlib import Path

import pytest
from dragoman_protocol.agent import AgentDefinition
from dragomand.engine import agent_files
from dragomand.engine.agent_files import AgentFileError, parse, read
from hypothesis import example, given
from hypothesis import strategies as st

WHOLE = """---
name: reviewer
description: Reviews code: carefully, with "reasons" <example>…</example>
tools: Read, Bash(git log, git diff), Grep
disallowedTools: [Write, 'Edit']
skills:
  - one
  - "two"
model: opus
maxTurns: 7
effort: high
permissionMode: plan
background: true
examples:
- Review this
color: red
# a remark

---

You review.

---
That was no end.
"""


def test_a_file_like_claude_codes_own() -> None:
    assert parse(WHOLE, "file") == (
        "reviewer",
        AgentDefinition(
            description='Reviews code: carefully, with "reasons" <example>…</example>',
            prompt="You review.\n\n---\nThat was no end.",
            tools=["Read", "Bash(git log, git diff)", "Grep"],
            disallowed_tools=["Write", "Edit"],
            skills=["one", "two"],
            model="opus",
            max_turns=7,
            effort="high",
            permission_mode="plan",
            background=True,
            examples=["Review this"],
        ),
    )


def test_the_least_that_is_an_agent() -> None:
    text = "\ufeff---\r\ndescription: 'It''s short'\r\n---\r\nGo.\r\n"
    assert parse(text, "small-one") == (
        "small-one",
        AgentDefinition(description="It's short", prompt="Go."),
    )


@pytest.mark.parametrize("sign", ["|", ">", "|-", ""])
def test_texts_over_several_lines(sign: str) -> None:
    text = f"---\ndescription: {sign}\n  First.\n\n  Second.\nmodel: haiku\n---\nGo."
    name, definition = parse(text, "a")
    assert (name, definition.description, definition.model) == ("a", "First.\n\nSecond.", "haiku")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("You review.", "does not begin with front matter"),
        ("---\ndescription: d\nYou review.", "has no end"),
        ("---\ndescription: d\nwhat is this\n---\nGo.", "line 3 is no `key: value`: 'what is this'"),
        ("---\n- a\n---\nGo.", "line 2 is no `key: value`"),
        ("---\nmodel: opus\n---\nGo.", "has no `description`"),
        ("---\ndescription: d\n---\n \n", "there is no prompt"),
        ("---\nname: ../up\ndescription: d\n---\nGo.", "the name '../up' is not allowed"),
        ("---\ndescription: d\nmaxTurns: many\n---\nGo.", "does not fit: .*maxTurns"),
        ("---\ndescription: d\neffort: silly\n---\nGo.", "does not fit: .*effort"),
        ("---\ndescription: d\npermissionMode: yolo\n---\nGo.", "does not fit: .*permissionMode"),
    ],
)
def test_what_is_no_agent(text: str, why: str) -> None:
    with pytest.raises(AgentFileError, match=why):
        parse(text, "file")


@given(st.text(alphabet="-: \n\t|>[]'\"#,abname()description", max_size=80))
@example("name:\ndescription: x\ntools:\n  - ")
def test_whatever_is_in_a_file_is_an_agent_or_is_none(head: str) -> None:
    for text in (head, f"---\ndescription: d\n{head}\n---\nGo."):
        try:
            name, definition = parse(text, "file")
        except AgentFileError:
            continue  # nothing else may be raised
        else:
            assert agent_files.NAME.match(name)
            assert definition.description
            assert definition.prompt


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "own.md"
    file.write_text("---\ndescription: mine\n---\nGo.")
    assert read(file) == ("own", AgentDefinition(description="mine", prompt="Go."))
    link = tmp_path / "link.md"
    link.symlink_to(file)
    assert read(link)[0] == "link"


def test_files_that_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.md"
    file.write_bytes(b"---\ndescription: \xff\n---\nGo.")
    with pytest.raises(AgentFileError, match="not UTF-8"):
        read(file)
    file.chmod(0o666)
    with pytest.raises(AgentFileError, match="others may write it"):
        read(file)
    file.chmod(0o600)
    monkeypatch.setattr(agent_files, "MAX_BYTES", 10)
    with pytest.raises(AgentFileError, match="bytes; at most 10 are read"):
        read(file)
    with pytest.raises(AgentFileError, match="cannot be read: No such file"):
        read(tmp_path / "none.md")
    with pytest.raises(AgentFileError, match=r"cannot be read: Is a directory|not a regular file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.md")
    with pytest.raises(AgentFileError, match="not a regular file"):
        read(tmp_path / "pipe.md")
