"""Whether an executable knows the variable for a unix socket (RV.6)."""

import os
from pathlib import Path

import pytest
from dragomand.upstream.claude_code import unix_socket
from dragomand.upstream.claude_code.executable import find_bundled
from dragomand.upstream.claude_code.unix_socket import SOCKET_VARIABLE, UnixSocketSupport

WORD = SOCKET_VARIABLE.encode()


@pytest.mark.parametrize("before", [0, 1, 5, 11, 21, 22, 23, 40, 100])
def test_it_is_found_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    monkeypatch.setattr(unix_socket, "_STEP", 24)
    file = tmp_path / "claude"
    file.write_bytes(b"-" * before + WORD + b"-" * 60)
    assert UnixSocketSupport().look(str(file))


@pytest.mark.parametrize("content", [b"", b"-" * 100, WORD[:-1], b"-" * 30 + WORD[1:]])
def test_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(unix_socket, "_STEP", 24)
    file = tmp_path / "claude"
    file.write_bytes(content)
    assert not UnixSocketSupport().look(str(file))
    assert not UnixSocketSupport().look(str(tmp_path / "nowhere"))


def test_a_file_is_read_once_for_each_version(tmp_path: Path) -> None:
    file = tmp_path / "claude"
    file.write_bytes(WORD)
    known = os.stat(file)
    support = UnixSocketSupport()
    assert support.look(str(file))
    file.write_bytes(b"-" * len(WORD))
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert support.look(str(file))  # to all appearance it is the same
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns + 1))
    assert not support.look(str(file))


def test_the_bundled_one_knows_it() -> None:
    bundled = find_bundled()
    assert bundled is not None
    assert UnixSocketSupport().look(bundled)
