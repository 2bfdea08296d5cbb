import asyncio
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from dragoman.locate import NotRunningError, Paths, UntrustedError, connect, find_paths
from dragomand.process.listen import BACKLOG, Listener, bind, bind_anew
from dragomand.process.lock import InstanceLock
from dragomand.process.paths import prepare


@pytest.fixture
def lock(paths: Paths) -> Iterator[InstanceLock]:
    lock = InstanceLock.acquire(paths)
    yield lock
    lock.release()


@pytest.fixture
def listener(lock: InstanceLock) -> Iterator[Listener]:
    listener = bind(lock)
    listener.listen()
    yield listener
    listener.close()


def test_the_socket_is_private_and_takes_clients(listener: Listener, paths: Paths) -> None:
    assert listener.path == paths.socket
    assert stat.S_IMODE(os.stat(paths.socket).st_mode) == 0o600
    assert listener.is_in_place()
    with connect(paths) as client, listener.socket.accept()[0] as served:
        client.sendall(b"x")
        assert served.recv(1) == b"x"


def test_before_it_listens_nobody_waits_in_vain(lock: InstanceLock, paths: Paths) -> None:
    listener = bind(lock)
    with pytest.raises(NotRunningError, match="nobody listens"):
        connect(paths)
    assert listener.withdraw() == []
    listener.close()
    assert not os.path.exists(paths.socket)


async def test_an_event_loop_makes_it_listen(lock: InstanceLock, paths: Paths) -> None:
    listener = bind(lock)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(asyncio.Protocol, sock=listener.socket)
    connect(paths).close()
    server.close()
    listener.close()


def test_the_umask_stays_as_it_is(lock: InstanceLock) -> None:
    before = os.umask(0o027)
    try:
        bind(lock).close()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_many_clients_may_wait_at_the_door(listener: Listener, paths: Paths) -> None:
    clients = [connect(paths, 0.5) for _ in range(200)]
    waiting = listener.withdraw()
    assert len(waiting) == 200 < BACKLOG
    for each in (*clients, *waiting):
        each.close()


def test_a_face_has_a_socket_of_its_own(lock: InstanceLock, paths: Paths) -> None:
    listener = bind(lock, "lsp")
    assert listener.path == paths.face("lsp")
    assert os.path.basename(listener.path) == "lsp.sock"
    listener.close()


def test_a_dead_daemon_s_socket_is_replaced(lock: InstanceLock, paths: Paths) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(paths.socket)
    dead.close()
    with pytest.raises(NotRunningError):
        connect(paths)
    listener = bind(lock)
    listener.listen()
    connect(paths).close()
    listener.close()


def test_what_is_no_socket_is_left_alone(lock: InstanceLock, paths: Paths) -> None:
    Path(paths.socket).write_text("precious")
    with pytest.raises(UntrustedError, match=r"not a socket.*in the way"):
        bind(lock)
    assert Path(paths.socket).read_text() == "precious"


def test_a_link_in_the_way_is_not_followed(lock: InstanceLock, paths: Paths, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other.sock"))
        os.symlink(tmp_path / "other.sock", paths.socket)
        with pytest.raises(UntrustedError, match="not a socket"):
            bind(lock)
    assert (tmp_path / "other.sock").exists()


def test_a_directory_open_to_others_is_refused(lock: InstanceLock, paths: Paths) -> None:
    os.chmod(paths.runtime_dir, 0o750)
    with pytest.raises(UntrustedError, match="chmod 700"):
        bind(lock)
    assert os.listdir(paths.runtime_dir) == []


def test_a_bind_that_fails_leaves_nothing(lock: InstanceLock, paths: Paths) -> None:
    before = os.umask(0o022)
    try:
        with pytest.raises(OSError, match="too long"):
            bind(lock, "x" * 120)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_withdrawing_returns_whoever_waited_and_lets_no_one_in(listener: Listener, paths: Paths) -> None:
    with connect(paths) as client:
        (waiting,) = listener.withdraw()
        with waiting:
            client.sendall(b"late")
            assert waiting.recv(4) == b"late"
    assert not os.path.exists(paths.socket)
    assert not listener.is_in_place()
    with pytest.raises(NotRunningError):
        connect(paths)
    assert listener.withdraw() == []


def test_closing_turns_the_waiting_away(listener: Listener, paths: Paths) -> None:
    with connect(paths) as client:
        listener.close()
        listener.close()
        assert client.recv(1) == b""
    assert listener.socket.fileno() == -1


def test_another_s_socket_at_our_path_is_not_removed(
    listener: Listener, paths: Paths, lock: InstanceLock
) -> None:
    os.unlink(paths.socket)
    assert not listener.is_in_place()
    successor = bind(lock)
    successor.listen()
    assert not listener.is_in_place()
    listener.close()
    assert successor.is_in_place()
    connect(paths).close()
    successor.close()
    assert not os.path.exists(paths.socket)


def test_a_client_gone_before_it_was_accepted_does_no_harm(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is not to be had from a unix socket on Linux, so the accepting is played."""
    answers: list[BaseException] = [ConnectionAbortedError(), BlockingIOError(), OSError(5, "I/O error")]

    class Aborting:
        def setblocking(self, _flag: bool) -> None: ...

        def accept(self) -> None:
            raise answers.pop(0)

    real, listener.socket = listener.socket, Aborting()  # type: ignore[assignment]
    assert listener.withdraw() == []
    with pytest.raises(OSError, match="I/O error"):
        listener.withdraw()
    real.close()
    listener.socket = real


def test_binding_anew_when_the_folder_was_cleared(lock: InstanceLock, paths: Paths) -> None:
    first = bind(lock)
    shutil.rmtree(paths.runtime_dir)
    assert not first.is_in_place()
    second = bind_anew(lock)
    assert (second.path, second.is_in_place()) == (paths.socket, True)
    first.close()
    second.close()


def test_binding_anew_after_the_last_logout(tmp_path: Path) -> None:
    """XDG_RUNTIME_DIR is gone, and not ours to make: the socket moves to the state directory."""
    run = tmp_path / "user-1000"
    run.mkdir(mode=0o700)
    paths = find_paths({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(run)})
    prepare(paths)
    lock = InstanceLock.acquire(paths)
    first = bind(lock)
    lock.record(first.path, "1")
    shutil.rmtree(run)
    second = bind_anew(lock)
    second.listen()
    assert second.path == find_paths({"HOME": str(tmp_path)}).socket
    lock.record(second.path, "1")
    assert not run.exists()
    run.mkdir(mode=0o700)  # the next login
    connect(paths).close()
    connect(find_paths({"HOME": str(tmp_path)})).close()
    first.close()
    second.close()
    lock.release()
