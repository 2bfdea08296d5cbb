"""Counting the messages of Claude Code's own record."""

import os
from pathlib import Path

import pytest
from dragomand.upstream.claude_code.transcript import Transcript, config_dir

USER = b'{"type":"user","message":{"content":"hi"}}\n'
ASSISTANT = b'{"type":"assistant","isSidechain":false}\n'


@pytest.fixture
def record(tmp_path: Path) -> Path:
    folder = tmp_path / "projects" / "-some-folder"
    folder.mkdir(parents=True)
    (tmp_path / "projects" / "a-file").write_text("")
    (tmp_path / "projects" / "-another").mkdir()
    return folder / "s.jsonl"


def test_it_counts_on_from_where_it_was(tmp_path: Path, record: Path) -> None:
    transcript = Transcript(str(tmp_path), "s")
    assert transcript.count() is None
    record.write_bytes(USER + ASSISTANT)
    assert transcript.count() == 2
    assert transcript.count() == 2
    with record.open("ab") as file:
        file.write(USER + ASSISTANT[:10])
    assert transcript.count() == 3
    with record.open("ab") as file:
        file.write(ASSISTANT[10:])
    assert transcript.count() == 4
    assert Transcript(str(tmp_path), "s").count() == 4


def test_only_messages_count(tmp_path: Path, record: Path) -> None:
    record.write_bytes(
        b'{"type":"summary"}\n{"type":"user","isSidechain":true}\n\n{torn\n[1]\n{"type":3}\n"\xff"\n'
        b'{"type":"attachment","message":{}}\n' + USER
    )
    assert Transcript(str(tmp_path), "s").count() == 1


def test_the_last_message_and_a_certain_one(tmp_path: Path, record: Path) -> None:
    transcript = Transcript(str(tmp_path), "s", "two")
    assert (transcript.count(), transcript.complete, transcript.last) == (None, False, None)
    record.write_bytes(b'{"type":"user","uuid":"one"}\n' + USER)
    assert (transcript.count(), transcript.complete, transcript.last) == (2, False, "one")
    with record.open("ab") as file:
        file.write(b'{"type":"assistant","uuid":"two"}\n{"type":"user","uuid":"three"}\n')
        file.write(b'{"type":"user","uuid":"sub","isSidechain":true}\n{"type":"attachment","uuid":"a"}\n')
    assert (transcript.count(), transcript.complete, transcript.last) == (4, True, "three")
    assert Transcript(str(tmp_path), "s").complete, "nothing was asked for"


def test_a_record_that_cannot_be_read_is_unknown(tmp_path: Path, record: Path) -> None:
    record.write_bytes(USER)
    transcript = Transcript(str(tmp_path), "s")
    assert transcript.count() == 1
    os.unlink(record)
    assert transcript.count() is None
    assert Transcript(str(tmp_path / "nowhere"), "s").count() is None


def test_where_claude_code_keeps_it() -> None:
    assert config_dir({"CLAUDE_CONFIG_DIR": "/c", "HOME": "/h"}) == "/c"
    assert config_dir({"HOME": "/h"}) == "/h/.claude"
    assert config_dir({}) == "/.claude"


def test_a_rehearsal_does_not_count_and_talk_of_one_does(tmp_path: Path, record: Path) -> None:
    rehearsed = b'{"type":"user","message":{"content":"dragoman-rehearsal-0123456789abcdef: warms up"}}\n'
    talk = b'{"type":"user","uuid":"u-1","message":{"content":"What is a dragoman-rehearsal?"}}\n'
    record.write_bytes(rehearsed + talk + ASSISTANT)
    transcript = Transcript(str(tmp_path), "s", "u-1")
    assert transcript.count() == 2
    assert transcript.complete
