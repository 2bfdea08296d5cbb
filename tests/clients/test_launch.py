import contextlib
import fcntl
import importlib.util
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman import launch
from dragoman.launch import LaunchError, ensure_daemon, make_private_dir
from dragoman.locate import UntrustedError, peer_pid, read_record

MANY = [sys.executable, "-P", str(Path(__file__).with_name("many_clients.py"))]
NOBODY = ["/nonexistent/dragomand"]


@pytest.fixture
def ensure(place: Any, standin: list[str]) -> Callable[..., socket.socket]:
    def ensure(mode: str = "echo", patience_s: float = 30, command: list[str] | None = None) -> socket.socket:
        env = {**place.env, "STANDIN_MODE": mode}
        return ensure_daemon(place.paths, env, patience_s, command=standin if command is None else command)

    return ensure


Ensure = Callable[..., socket.socket]


def echo(connection: socket.socket, text: bytes = b"hello") -> bytes:
    connection.settimeout(20)
    connection.sendall(text)
    return connection.recv(100)


def wait_for_end(pid: int) -> None:
    """A zombie counts as ended: whoever is its parent now may be slow to look after it."""
    import select

    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            assert select.select([descriptor], [], [], 10)[0], f"{pid} lives"
        finally:
            os.close(descriptor)


# --- starting


def test_it_starts_one_and_finds_it_again(ensure: Ensure, place: Any) -> None:
    with ensure() as first, ensure(command=NOBODY) as second:
        assert echo(first) == echo(second) == b"hello"
        assert peer_pid(first) == peer_pid(second) == read_record(place.paths)["pid"]
    assert len(place.starts()) == 1
    assert stat.S_IMODE(os.stat(place.paths.stderr_file).st_mode) == 0o600


def test_the_daemon_is_nobody_s_child_and_has_nothing_of_its_starter_s(ensure: Ensure, place: Any) -> None:
    mine = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(mine, True)
    with ensure() as connection:
        os.close(mine)
        pid = peer_pid(connection)
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"PPid:\t{os.getpid()}\n" not in status
        assert os.getsid(pid) != os.getsid(0)
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        files = sorted(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    kinds = [file for file in files if not file.startswith("socket:")]
    assert kinds == sorted(
        [os.devnull, place.paths.stderr_file, place.paths.stderr_file, place.paths.lock_file]
    )


def test_a_hundred_clients_on_a_cold_machine_get_one_daemon(place: Any, standin: list[str]) -> None:
    done = subprocess.run(
        [*MANY, "100", *standin], env=place.env, capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout == "100 of 100\n"
    assert len(place.starts()) == 1


def test_after_a_kill_the_next_start_is_as_the_first(ensure: Ensure, place: Any) -> None:
    for count in (1, 2, 3):
        with ensure() as connection:
            assert echo(connection) == b"hello"
            place.kill(signal.SIGKILL)
            assert os.path.exists(place.paths.socket)
        assert len(place.starts()) == count


def test_a_leaving_daemon_is_followed_by_another(ensure: Ensure, place: Any) -> None:
    with ensure("leave-first") as connection:
        assert connection.recv(1) == b""
    wait_for_end(place.starts()[0])
    with ensure("leave-first") as connection:
        assert echo(connection) == b"hello"
    assert len(place.starts()) == 2


def test_daemons_that_leave_at_once_are_not_started_for_ever(ensure: Ensure, place: Any) -> None:
    with pytest.raises(LaunchError, match="started 3 times and left at once"):
        ensure("gone")
    assert len(place.starts()) == 3


def test_a_foreign_file_in_the_socket_s_place_is_told_of_and_left_alone(ensure: Ensure, place: Any) -> None:
    os.makedirs(place.paths.runtime_dir, 0o700)
    os.chmod(os.path.dirname(place.paths.runtime_dir), 0o700)
    Path(place.paths.socket).write_text("precious")
    with pytest.raises(UntrustedError, match=r"is not a socket\. Remove it"):
        ensure()
    assert Path(place.paths.socket).read_text() == "precious"
    assert place.starts() == []


def test_a_daemon_on_another_socket_of_the_same_state_is_found(
    ensure: Ensure, place: Any, tmp_path: Path
) -> None:
    """A desktop session has XDG_RUNTIME_DIR and cron has not: one database, so one daemon."""
    ensure().close()
    from dragoman.locate import find_paths

    cron = {name: value for name, value in place.env.items() if name != "XDG_RUNTIME_DIR"}
    assert find_paths(cron).socket != place.paths.socket
    with ensure_daemon(find_paths(cron), cron, 30, command=NOBODY) as connection:
        assert echo(connection) == b"hello"


# --- what goes wrong


def test_the_daemon_s_own_reason_comes_back(ensure: Ensure) -> None:
    with pytest.raises(LaunchError, match=r"^The moon is in the wrong phase\.$") as raised:
        ensure("refuse")
    assert raised.value.exit_status == 4


def test_a_daemon_killed_before_its_word(ensure: Ensure, place: Any) -> None:
    with pytest.raises(LaunchError, match=r"\(status 137\)\. It said nothing; see .*daemon\.log") as raised:
        ensure("die")
    assert raised.value.exit_status == 137


def test_a_crash_shows_what_was_printed(ensure: Ensure) -> None:
    with pytest.raises(LaunchError, match=r"(?s)\(status 3\).* It said:\nsomething broke$") as raised:
        ensure("crash")
    assert raised.value.exit_status == 3


def test_one_that_never_speaks_is_killed(ensure: Ensure, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The patience runs out once the daemon is known to hang, however long it took to get there."""
    make_private_dir(place.paths.state_dir)
    fifo = Path(place.paths.state_dir, "hanging")
    os.mkfifo(fifo)
    pids = []
    real = launch._read_word

    def read_word(reader: int, _deadline: float) -> bytes | None:
        pids.append(int(fifo.read_text()))
        return real(reader, time.monotonic() + 0.05)

    monkeypatch.setattr(launch, "_read_word", read_word)
    with pytest.raises(
        LaunchError, match=r"not ready after 30 s\. It said:\nwaiting for the moon$"
    ) as raised:
        ensure("hang")
    assert raised.value.exit_status is None
    wait_for_end(pids[0])


def test_one_that_does_not_detach_is_killed(
    ensure: Ensure, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_DETACH_S", 0.05)
    with pytest.raises(LaunchError, match="spoke and did not detach"):
        ensure("stay")
    wait_for_end(place.starts()[0])


def test_our_own_interruption_leaves_no_half_started_daemon(
    ensure: Ensure, place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = []
    real = launch._spawn

    def spawn(*arguments: Any) -> Any:
        spawned.append(real(*arguments))
        return spawned[0]

    def interrupted(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_spawn", spawn)
    monkeypatch.setattr(launch, "_read_word", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure("hang")
    assert spawned[0].returncode == -signal.SIGKILL


def test_no_such_program(ensure: Ensure) -> None:
    with pytest.raises(LaunchError, match=r"/nonexistent/dragomand cannot be started: No such file"):
        ensure(command=NOBODY)


@pytest.mark.parametrize(
    "word",
    ["", "[1]\n", "nonsense\n", '{"ready": false}\n', '{"error": 5}\n', '{"ready": tru', "x" * 100_000],
)
def test_a_word_that_is_not_understood(ensure: Ensure, word: str) -> None:
    code = (
        f"import os, sys; os.write(int(os.environ['{launch.READY_FD}']), sys.argv[1].encode()); sys.exit(5)"
    )
    with pytest.raises(LaunchError, match=r"ended while starting \(status 5\)") as raised:
        ensure(command=[sys.executable, "-S", "-c", code, word])
    assert raised.value.exit_status == 5


def test_a_word_in_pieces(ensure: Ensure, place: Any) -> None:
    code = f"""if True:
        import os
        pipe = int(os.environ['{launch.READY_FD}'])
        for piece in ('{{"err', 'or": "piece', 'meal"}}', chr(10)):
            os.write(pipe, piece.encode())
    """
    with pytest.raises(LaunchError, match=r"^piecemeal$"):
        ensure(command=[sys.executable, "-S", "-c", code])


def test_a_log_that_is_gone_is_not_shown(ensure: Ensure, place: Any) -> None:
    code = "import os, sys; os.unlink(sys.argv[1])"
    with pytest.raises(LaunchError, match=r"\(status 0\)\.$"):
        ensure(command=[sys.executable, "-S", "-c", code, place.paths.stderr_file])


def test_a_home_that_cannot_be_written(ensure: Ensure, place: Any) -> None:
    state_home = Path(place.paths.state_dir).parent
    state_home.parent.mkdir(parents=True)
    state_home.touch()
    with pytest.raises(LaunchError, match=r"The daemon needs .*Not a directory"):
        ensure()


# --- waiting for somebody else's start


@pytest.fixture
def start_lock(place: Any) -> Iterator[int]:
    """The start lock, held as another client does that is starting the daemon."""
    make_private_dir(place.paths.state_dir)
    lock = os.open(place.paths.start_lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield lock
    os.close(lock)


@pytest.mark.usefixtures("start_lock")
def test_a_start_that_takes_too_long_is_not_awaited_for_ever(ensure: Ensure, place: Any) -> None:
    with pytest.raises(LaunchError, match=r"Another client has been starting the daemon for too long; see"):
        ensure(patience_s=0.05)
    assert place.starts() == []


@pytest.mark.usefixtures("start_lock")
def test_the_others_are_let_in_as_soon_as_it_is_ready(
    ensure: Ensure, place: Any, standin: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock stays held: nobody has to wait for it, only for the daemon."""
    waiting = threading.Event()
    pause = time.sleep

    def sleep(seconds: float) -> None:
        waiting.set()
        pause(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    problems: list[BaseException] = []

    def start() -> None:
        try:
            assert waiting.wait(10)
            make_private_dir(place.paths.log_dir)
            launch.start(place.paths, place.env, 30, command=standin)
        except BaseException as failed:
            problems.append(failed)

    starter = threading.Thread(target=start)
    starter.start()
    with ensure(command=NOBODY) as connection:
        assert echo(connection) == b"hello"
    starter.join(30)
    assert problems == []
    assert len(place.starts()) == 1


def test_whoever_gets_the_lock_last_finds_a_daemon(
    ensure: Ensure, place: Any, standin: list[str], start_lock: int
) -> None:
    make_private_dir(place.paths.log_dir)
    launch.start(place.paths, place.env, 30, command=standin)
    fcntl.flock(start_lock, fcntl.LOCK_UN)
    lock = os.open(place.paths.start_lock, os.O_RDWR)
    joined = launch._wait_for_turn(place.paths, lock, 0)
    assert joined is not None
    with joined:
        assert echo(joined) == b"hello"
    os.close(lock)


def test_a_daemon_that_stays_after_all_serves_whoever_came(
    ensure: Ensure, place: Any, standin: list[str]
) -> None:
    """It had taken its socket away to leave, and puts it back while another is being started in vain."""
    code = (
        "import os, subprocess, sys\n"
        "pipe = int(os.environ.pop('DRAGOMAN_READY_FD'))\n"
        "subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "while not os.path.exists(os.environ['SOCKET']): pass\n"
        'os.write(pipe, b\'{"error": "A daemon is running already."}\')\n'
    )
    place.env["SOCKET"] = place.paths.socket
    with ensure(command=[sys.executable, "-S", "-c", code, *standin]) as connection:
        assert echo(connection) == b"hello"
    assert len(place.starts()) == 1


# --- folders and the command line


def test_a_private_directory_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_private_dir(str(path))
    make_private_dir(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.chmod(0o711)
    with pytest.raises(UntrustedError, match="chmod 700"):
        make_private_dir(str(path))


def test_this_interpreter_s_own_daemon() -> None:
    assert launch.daemon_command({}) == [sys.executable, "-P", "-m", "dragomand", "--daemonized"]


def test_the_first_daemon_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.chdir(tmp_path)
    for folder in ("not-executable", "good", "relative"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dragomand").touch(0o644 if folder == "not-executable" else 0o755)
    path = f"relative:{tmp_path}/none::{tmp_path}/not-executable:{tmp_path}/good"
    assert launch.daemon_command({"PATH": path}) == [f"{tmp_path}/good/dragomand", "--daemonized"]
    with pytest.raises(LaunchError, match=r"pip install 'dragoman\[daemon\]'"):
        launch.daemon_command({"PATH": "relative"})
    with pytest.raises(LaunchError, match="not installed"):
        launch.daemon_command({})


def test_without_a_command_the_real_one_is_meant(
    place: Any, standin: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "daemon_command", lambda _env: standin)
    for name, value in place.env.items():
        monkeypatch.setenv(name, value)
    with ensure_daemon(place.paths, patience_s=30) as connection:
        assert echo(connection) == b"hello"


def test_the_ready_message_has_the_record(place: Any, standin: list[str]) -> None:
    make_private_dir(place.paths.state_dir)
    make_private_dir(place.paths.log_dir)
    message = launch.start(place.paths, place.env, 30, command=standin)
    record = json.loads(Path(place.paths.lock_file).read_text())
    assert message == {**record, "ready": True}
