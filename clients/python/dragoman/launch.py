"""Start the daemon if there is none: probe → lock → probe again → spawn → wait for its word → connect.

Any number of clients may do so at once; the start lock lets one of them spawn, and the others connect to
what it started. The daemon's own lock (`dragomand.process.lock`) is a second, independent guarantee.

The spawned process says over a *readiness pipe*, in one line of JSON, either
``{"ready": true, "pid": …, "socket": …, "version": …}`` or ``{"error": "<why not>"}``. It then detaches
itself, so that the daemon is no child of ours: the process we spawned waits for that word too, and ends with
status 0 or with the status of the daemon that failed.

`subprocess` and friends are imported only when something is really spawned.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time

from dragoman.locate import LocateError, NotRunningError, Paths, check_private_dir, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import subprocess
    from collections.abc import Mapping, Sequence

PATIENCE_S = 20.0
"""How long a start may take, in seconds, before it is given up."""

READY_FD = "DRAGOMAN_READY_FD"
"""The environment variable that tells the daemon the number of the readiness pipe's file descriptor."""

_ATTEMPTS = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.1
_DETACH_S = 2.0
_WORD_BYTES = 65536
_TAIL_BYTES = 4096
_NEEDED = ("dragomand", "anyio", "aiosqlite")
_INSTALL = "The daemon is not installed here. Run: pip install 'dragoman[daemon]'"


class LaunchError(LocateError):
    """The daemon did not start. The text is the daemon's own where it gave one.

    `exit_status` is that of its process, 128 + n for signal n; None if it did not end by itself.
    """

    def __init__(self, text: str, exit_status: int | None = None) -> None:
        """Say `text`, and with which status the process ended."""
        super().__init__(text)
        self.exit_status = exit_status


def ensure_daemon(
    paths: Paths,
    env: Mapping[str, str] | None = None,
    patience_s: float = PATIENCE_S,
    *,
    command: Sequence[str] | None = None,
) -> socket.socket:
    """Return a connection to the daemon of `paths`, starting it if there is none.

    `env` is the environment of a daemon started here (default: ours) and must be the one that `paths` come
    from. `patience_s` bounds the whole, in seconds. `command` replaces the daemon's command line. Raises
    `LaunchError`, and what `dragoman.locate.connect` raises about a socket that cannot be trusted.

    A daemon that is just leaving may close the connection before it has read anything: who gets the end of
    the stream before the first byte of an answer calls this again (`dragoman.forward` does).
    """
    deadline = time.monotonic() + patience_s
    gone: NotRunningError | None = None
    for _ in range(_ATTEMPTS):
        try:
            return connect(paths)
        except NotRunningError:
            pass
        try:
            return _start_or_join(paths, os.environ if env is None else env, deadline, command)
        except NotRunningError as error:
            gone = error  # it was ready, and left again before we got through its door
    raise LaunchError(f"The daemon started {_ATTEMPTS} times and left at once. {gone}")


def _start_or_join(
    paths: Paths, env: Mapping[str, str], deadline: float, command: Sequence[str] | None
) -> socket.socket:
    try:
        make_private_dir(paths.state_dir)
        make_private_dir(paths.log_dir)
        lock = os.open(paths.start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as failed:
        raise LaunchError(f"The daemon needs {paths.state_dir}: {failed}") from None
    try:
        joined = _wait_for_turn(paths, lock, deadline)
        if joined is not None:
            return joined
        try:
            start(paths, env, deadline - time.monotonic(), command=command)
        except LaunchError as failed:
            return _whoever_runs(paths, failed)
        return connect(paths)
    finally:
        os.close(lock)  # the lock goes with its last file descriptor


def _whoever_runs(paths: Paths, failed: LaunchError) -> socket.socket:
    """Return a connection to a daemon that is there in spite of `failed`, or raise that.

    One that was about to leave changes its mind when somebody comes at that moment: then ours was refused.
    """
    try:
        return connect(paths)
    except LocateError:
        raise failed from None


def _wait_for_turn(paths: Paths, lock: int, deadline: float) -> socket.socket | None:
    """Return a connection once somebody else's daemon is up, or None once the start lock is ours.

    Trying again at growing intervals is meant: `flock` knows no time limit, and a library must not use its
    host's interval timer or threads for one. It also lets a hundred waiting clients through the moment the
    daemon is ready, instead of one after the other.
    """
    pause = _FIRST_PAUSE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            locked = False
        try:
            return connect(paths)
        except NotRunningError:
            if locked:
                return None
        left = deadline - time.monotonic()
        if left <= 0:
            raise LaunchError(
                f"Another client has been starting the daemon for too long; see {paths.stderr_file}"
            )
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def make_private_dir(path: str) -> None:
    """Create `path` with mode 0700 (missing parents too), or check that it is private if it is there.

    Raises `UntrustedError` for a directory that is not ours alone, `OSError` if it cannot be created.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        os.makedirs(path, 0o700, exist_ok=True)  # "exist": a second client, at the same moment
    check_private_dir(path)


def daemon_command(env: Mapping[str, str]) -> list[str]:
    """Return the command line that starts the daemon.

    This interpreter's own `dragomand` where its dependencies are installed, else the first `dragomand` in an
    absolute folder of PATH (a thin client in a project's environment, the daemon installed by pipx). Raises
    `LaunchError` if there is neither. ``-P`` keeps the working directory, a stranger's repository perhaps,
    off the module path.
    """
    import importlib.util

    if sys.executable and all(importlib.util.find_spec(name) for name in _NEEDED):
        return [sys.executable, "-P", "-m", "dragomand", "--daemonized"]
    for folder in env.get("PATH", "").split(os.pathsep):
        program = os.path.join(folder, "dragomand")
        if os.path.isabs(folder) and os.access(program, os.X_OK):
            return [program, "--daemonized"]
    raise LaunchError(_INSTALL)


def start(
    paths: Paths, env: Mapping[str, str], patience_s: float, *, command: Sequence[str] | None = None
) -> dict[str, object]:
    """Spawn the daemon and return the ready message; raises `LaunchError`.

    It gets a session of its own, ``/`` as working directory, nothing on stdin, its output in
    `paths.stderr_file` (emptied first), and no file descriptor of ours but the readiness pipe. If it has
    not spoken after `patience_s` seconds, it is killed.
    """
    command = daemon_command(env) if command is None else command
    reader, writer = os.pipe()
    try:
        try:
            child = _spawn(paths, env, command, writer)
        except OSError as failed:
            raise LaunchError(f"{command[0]} cannot be started: {failed.strerror}.") from None
        finally:
            os.close(writer)
        try:
            word = _read_word(reader, time.monotonic() + patience_s)
            if word is None:
                raise LaunchError(f"The daemon was not ready after {patience_s:.0f} s.{_tail(paths)}")
            return _understand(word, child, paths)
        except BaseException:  # our own interruption included: no half-started daemon stays behind
            _kill(child)
            raise
    finally:
        os.close(reader)


def _spawn(
    paths: Paths, env: Mapping[str, str], command: Sequence[str], writer: int
) -> subprocess.Popen[bytes]:
    import subprocess

    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    output = os.open(paths.stderr_file, flags, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**env, READY_FD: str(writer)},
            cwd="/",
            start_new_session=True,
            close_fds=True,
            pass_fds=(writer,),
        )
    finally:
        os.close(output)


def _read_word(reader: int, deadline: float) -> bytes | None:
    """Return the bytes up to the end of the line or of the stream; None if the deadline came first."""
    word = b""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    while b"\n" not in word and len(word) < _WORD_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return None
        chunk = os.read(reader, _WORD_BYTES)
        if not chunk:
            break
        word += chunk
    return word


def _understand(word: bytes, child: subprocess.Popen[bytes], paths: Paths) -> dict[str, object]:
    import json
    import subprocess

    try:
        message = json.loads(word)
    except ValueError:
        message = None
    try:
        status = child.wait(_DETACH_S)
    except subprocess.TimeoutExpired:
        raise LaunchError(f"Process {child.pid} spoke and did not detach itself.") from None
    status = status if status >= 0 else 128 - status
    if isinstance(message, dict) and message.get("ready") is True:
        return message
    if isinstance(message, dict) and isinstance(message.get("error"), str):
        raise LaunchError(message["error"], status)
    raise LaunchError(f"The daemon ended while starting (status {status}).{_tail(paths)}", status)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Kill what we spawned and what it forked: both are in the process group that bears its number."""
    import contextlib
    import signal

    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _tail(paths: Paths) -> str:
    """Return the last of what the daemon printed, on lines of its own, or where it would be."""
    try:
        file = os.open(paths.stderr_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        os.lseek(file, max(0, os.fstat(file).st_size - _TAIL_BYTES), os.SEEK_SET)
        text = os.read(file, _TAIL_BYTES).decode(errors="replace").strip()
    finally:
        os.close(file)
    return f" It said:\n{text}" if text else f" It said nothing; see {paths.log_file}"
