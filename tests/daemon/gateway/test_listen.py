"""The gateway's sockets."""

import os
import socket
from pathlib import Path

import pytest
from dragoman.locate import UntrustedError
from dragomand.gateway import listen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "r"
    made.mkdir(mode=0o700)
    return made


def test_a_socket_of_ones_own(folder: Path) -> None:
    bound = listen.bind_unix(str(folder))
    assert bound is not None
    (file,) = folder.iterdir()
    assert file.name == f"gw-{os.getpid()}.sock"
    assert file.stat().st_mode & 0o777 == 0o600
    assert listen.is_in_place(bound)
    listen.withdraw(bound)
    listen.withdraw(bound)
    assert not list(folder.iterdir())


def test_one_whose_file_was_removed(folder: Path) -> None:
    bound = listen.bind_unix(str(folder))
    assert bound is not None
    next(folder.iterdir()).unlink()
    assert not listen.is_in_place(bound)
    listen.withdraw(bound)


def test_what_dead_daemons_left_is_removed_and_nothing_else(folder: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "gw-1.sock"))
    dead.close()
    mine = socket.socket(socket.AF_UNIX)
    mine.bind(str(folder / f"gw-{os.getpid()}.sock"))
    mine.close()
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as other:
        living.bind(str(folder / "gw-2.sock"))
        living.listen()
        other.bind(str(folder / "rpc.sock"))
        bound = listen.bind_unix(str(folder))
        assert bound is not None
        names = {file.name for file in folder.iterdir()}
        assert names == {"gw-2.sock", "rpc.sock", f"gw-{os.getpid()}.sock"}
        listen.withdraw(bound)


def test_a_folder_that_is_open_to_others(folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(UntrustedError):
        listen.bind_unix(str(folder))


def test_a_path_that_is_too_long(folder: Path) -> None:
    deep = folder / ("d" * 100)
    deep.mkdir(mode=0o700)
    assert listen.bind_unix(str(deep)) is None


def test_a_port(folder: Path) -> None:
    bound = listen.bind_loopback()
    assert bound.getsockname()[0] == "127.0.0.1"
    listen.withdraw(bound)
    assert bound.fileno() == -1
