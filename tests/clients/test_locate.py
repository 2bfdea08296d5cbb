import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dragoman import locate
from dragoman.locate import BusyError, LocateError, NotRunningError, UntrustedError, connect, find_paths

LIBRARY = "/h/Library/Application Support"


def digest(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:8]


STATE = digest("/h/.local/state/dragoman")


@pytest.mark.parametrize(
    ("platform", "env", "state", "runtime", "config"),
    [
        ("linux", {}, "/h/.local/state/dragoman", "/h/.local/state/dragoman/run", "/h/.config"),
        (
            "linux",
            {"XDG_RUNTIME_DIR": "/run/user/7"},
            "/h/.local/state/dragoman",
            f"/run/user/7/dragoman/{STATE}",
            "/h/.config",
        ),
        ("linux", {"XDG_STATE_HOME": "/s"}, "/s/dragoman", "/s/dragoman/run", "/h/.config"),
        (
            "linux",
            {"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r", "XDG_CONFIG_HOME": "/c"},
            "/s/dragoman",
            f"/r/dragoman/{digest('/s/dragoman')}",
            "/c",
        ),
        (
            "linux",
            {"XDG_STATE_HOME": "s", "XDG_RUNTIME_DIR": "./r", "XDG_CONFIG_HOME": ""},
            "/h/.local/state/dragoman",
            "/h/.local/state/dragoman/run",
            "/h/.config",
        ),
        ("darwin", {}, f"{LIBRARY}/dragoman", f"{LIBRARY}/dragoman/run", LIBRARY),
        (
            "darwin",
            {"XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c"},
            "/s/dragoman",
            "/s/dragoman/run",
            "/c",
        ),
    ],
)
def test_the_folder_rule(platform: str, env: dict[str, str], state: str, runtime: str, config: str) -> None:
    paths = find_paths({"HOME": "/h", **env}, platform=platform, uid=7)
    assert paths.state_dir == state
    assert paths.runtime_dir == runtime
    assert paths.config_file == f"{config}/dragoman/config.toml"
    assert paths.socket == f"{runtime}/rpc.sock"
    assert paths.face("acp") == f"{runtime}/acp.sock"
    assert paths.lock_file == f"{state}/daemon.lock"
    assert paths.start_lock == f"{state}/start.lock"
    assert paths.log_file == f"{state}/log/daemon.log"
    assert paths.stderr_file == f"{state}/log/daemon.stderr"
    assert paths.database == f"{state}/dragoman.db"
    assert state in repr(paths)


@pytest.mark.parametrize(("platform", "longest"), [("linux", 107), ("darwin", 103)])
def test_a_socket_path_too_long_for_the_system_moves_to_tmp(platform: str, longest: int) -> None:
    room = longest - len("/dragoman/run/rpc.sock")
    fits = "/" + "s" * (room - 1)
    assert find_paths({"HOME": "/h", "XDG_STATE_HOME": fits}, platform=platform, uid=7).runtime_dir == (
        f"{fits}/dragoman/run"
    )
    over = fits + "s"
    moved = find_paths({"HOME": "/h", "XDG_STATE_HOME": over}, platform=platform, uid=7)
    assert moved.runtime_dir == f"/tmp/dragoman-7-{digest(over + '/dragoman')}"
    assert moved.state_dir == f"{over}/dragoman"


def test_the_limit_counts_bytes_not_characters() -> None:
    state = "/" + "é" * 50
    assert find_paths({"HOME": "/h", "XDG_STATE_HOME": state}, uid=7).runtime_dir.startswith("/tmp/")


def test_the_runtime_directory_follows_the_state_directory_s_real_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    one, other = (
        find_paths({"HOME": "/h", "XDG_STATE_HOME": str(tmp_path / name), "XDG_RUNTIME_DIR": "/r"})
        for name in ("real", "link")
    )
    assert one.socket == other.socket


def test_without_home_the_user_database_knows() -> None:
    import pwd

    home = pwd.getpwuid(os.getuid()).pw_dir
    assert find_paths({}, platform="linux").state_dir == f"{home}/.local/state/dragoman"


def test_without_any_home_it_says_so() -> None:
    with pytest.raises(LocateError, match="HOME is not set"):
        find_paths({"HOME": "relative"}, uid=3_999_999_999)


def test_windows_is_told_where_to_run_it() -> None:
    with pytest.raises(LocateError, match="WSL"):
        find_paths({}, platform="win32")


def test_the_default_environment_is_the_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert find_paths().state_dir == "/elsewhere/dragoman"


# --- connecting


@pytest.fixture
def paths(place: Any) -> locate.Paths:
    os.makedirs(place.paths.runtime_dir, 0o700)
    os.chmod(place.paths.runtime_dir, 0o700)
    os.makedirs(place.paths.state_dir, 0o700)
    return place.paths  # type: ignore[no-any-return]  # fixtures of a conftest have no type here


def listen(path: str, backlog: int = 1) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(backlog)
    return server


def test_connect_gives_a_blocking_socket_to_the_listener(paths: locate.Paths) -> None:
    with listen(paths.socket) as server, connect(paths) as client:
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
        assert client.gettimeout() is None
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == bytes(16)
        assert locate.peer_pid(client) == os.getpid()
        assert locate.peer_uid(client) == os.geteuid()


def test_no_directory_no_socket_and_a_dead_socket_all_mean_not_running(place: Any) -> None:
    with pytest.raises(NotRunningError, match="does not exist"):
        connect(place.paths)
    os.makedirs(place.paths.runtime_dir, 0o700)
    with pytest.raises(NotRunningError, match="does not exist"):
        connect(place.paths)
    listen(place.paths.socket).close()
    with pytest.raises(NotRunningError, match="nobody listens"):
        connect(place.paths)


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_directory_open_to_others_is_refused(paths: locate.Paths, mode: int) -> None:
    with listen(paths.socket):
        os.chmod(paths.runtime_dir, mode)
        with pytest.raises(UntrustedError, match=f"mode {mode:04o}.*chmod 700"):
            connect(paths)


def test_a_link_instead_of_the_directory_is_refused(paths: locate.Paths, tmp_path: Path) -> None:
    with listen(paths.socket):
        os.rename(paths.runtime_dir, tmp_path / "moved")
        os.symlink(tmp_path / "moved", paths.runtime_dir)
        with pytest.raises(UntrustedError, match="symbolic link"):
            connect(paths)


def test_a_file_instead_of_the_directory_is_refused(paths: locate.Paths) -> None:
    os.rmdir(paths.runtime_dir)
    Path(paths.runtime_dir).touch()
    with pytest.raises(UntrustedError, match="not a directory"):
        connect(paths)
    os.remove(paths.runtime_dir)
    parent = Path(paths.runtime_dir).parent
    parent.rmdir()
    parent.touch()
    with pytest.raises(UntrustedError, match="not a directory"):
        connect(paths)


def test_a_file_instead_of_the_socket_is_refused(paths: locate.Paths) -> None:
    Path(paths.socket).touch()
    with pytest.raises(UntrustedError, match="not a socket"):
        connect(paths)


def test_what_belongs_to_another_user_is_refused(
    paths: locate.Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changing owners needs root; so here we are the ones who change."""
    mine = os.geteuid()
    with listen(paths.socket):
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
        with pytest.raises(UntrustedError, match=f"belongs to user {mine}, not to user {mine + 1}"):
            locate.check_private_dir(paths.runtime_dir)
        with pytest.raises(UntrustedError, match=f"belongs to user {mine}"):
            locate.check_socket(paths.socket)
        monkeypatch.setattr(locate, "check_private_dir", lambda _path: None)
        monkeypatch.setattr(locate, "check_socket", lambda _path: None)
        with pytest.raises(UntrustedError, match=f"runs as user {mine}"):
            connect(paths)


def test_a_folder_that_may_not_be_entered_is_refused(
    paths: locate.Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may enter every folder, so the refusal is played."""

    def refuse(_path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(locate, "check_private_dir", refuse)
    with pytest.raises(UntrustedError, match="cannot be examined: Permission denied"):
        connect(paths)


def test_a_daemon_that_takes_no_connections_is_busy_after_the_patience(paths: locate.Paths) -> None:
    waiting: list[socket.socket] = []
    with listen(paths.socket, backlog=0), pytest.raises(BusyError, match=r"for 0\.05 s"):
        waiting.extend(connect(paths, 0.05) for _ in range(8))
    for client in waiting:
        client.close()


def test_an_unexpected_failure_keeps_its_reason(paths: locate.Paths) -> None:
    longer = os.path.join(paths.runtime_dir, "x" * 100)
    here = os.getcwd()
    os.chdir(paths.runtime_dir)
    try:
        with listen("x" * 100), pytest.raises(LocateError, match=r"cannot be connected to: .*too long"):
            locate.connect_to(longer)
    finally:
        os.chdir(here)


def test_the_lock_file_tells_of_a_socket_elsewhere(paths: locate.Paths, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other"
    elsewhere.mkdir(mode=0o700)
    Path(paths.lock_file).write_text(json.dumps({"socket": str(elsewhere / "rpc.sock")}))
    with pytest.raises(NotRunningError, match="other"):
        connect(paths)
    with listen(str(elsewhere / "rpc.sock")), connect(paths) as client:
        assert client.getpeername() == str(elsewhere / "rpc.sock")
        elsewhere.chmod(0o755)
        with pytest.raises(UntrustedError, match="0755"):
            connect(paths)


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"', '{"socket": 5}'])
def test_a_strange_lock_file_says_nothing(paths: locate.Paths, content: str) -> None:
    Path(paths.lock_file).write_text(content)
    with pytest.raises(NotRunningError, match="does not exist"):
        connect(paths)


def test_somebody_else_s_lock_file_says_nothing(paths: locate.Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(paths.lock_file).write_text('{"socket": "/x"}')
    assert locate.read_record(paths) == {"socket": "/x"}
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    assert locate.read_record(paths) == {}


def test_the_macos_way_of_knowing_the_peer() -> None:
    """Not available here: a stand-in for the socket answers as macOS does."""
    answers = {(0, 1): struct.pack("II", 0, 501), (0, 2): struct.pack("i", 77)}
    peer: Any = SimpleNamespace(getsockopt=lambda level, name, _size: answers[level, name])
    assert locate.peer_uid(peer, "darwin") == 501
    assert locate.peer_pid(peer, "darwin") == 77


def test_importing_it_is_cheap() -> None:
    heavy = ["asyncio", "subprocess", "msgspec", "logging", "tempfile", "typing", "json", "threading", "re"]
    code = f"import sys, dragoman.locate, dragoman.forward; print([m for m in {heavy} if m in sys.modules])"
    # -S: what `site` itself loads (an editable install's import hook) is not ours.
    path = str(Path(locate.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
