"""Where the daemon lives, and a checked way to reach it.

The folder rule is a pure function of the environment, so that a client in any language can repeat it
(`protocol/README.md` has it in prose):

====================  ==============================================================================
state directory       ``$XDG_STATE_HOME/dragoman``; without the variable ``~/.local/state/dragoman``,
                      on macOS ``~/Library/Application Support/dragoman``
configuration         ``$XDG_CONFIG_HOME/dragoman/config.toml``; without the variable
                      ``~/.config/dragoman/config.toml``, on macOS
                      ``~/Library/Application Support/dragoman/config.toml``
runtime directory     ``$XDG_RUNTIME_DIR/dragoman/<h>``, where ``<h>`` is the first 8 hexadecimal digits
                      of the SHA-256 of the state directory's real path; without the variable
                      ``<state directory>/run``. If a socket's path there would be longer than the
                      system allows (107 bytes, macOS 103): ``/tmp/dragoman-<uid>-<h>``
socket                ``<runtime directory>/rpc.sock``
====================  ==============================================================================

``XDG_*`` variables that are empty or not absolute count as unset, as the XDG specification says.

Two processes of one user may have different runtime directories (a desktop session has
``XDG_RUNTIME_DIR``, cron has not) and yet the same state directory, hence the same database. There
must be one daemon for both, so its lock is in the *state* directory and names the socket; whoever finds
no daemon at the usual socket looks there (`connect` does).

Every start of every command pays for this module's imports, so it uses the standard library's small
parts alone: neither `typing` nor `json` nor `asyncio` at import.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys

from dragoman import DragomanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FACES = ("rpc", "lsp", "acp", "mcp")
"""The names of the sockets in the runtime directory, without ``.sock``; this client speaks to the first."""

CONNECT_PATIENCE_S = 5.0
"""How long, in seconds, `connect` waits for room in the daemon's backlog of 1024 connections."""

_LOCK_RECORD_BYTES = 16384
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2


class LocateError(DragomanError):
    """Base of what this module raises: the daemon's place cannot be told, reached or trusted."""


class NotRunningError(LocateError):
    """Nobody listens: no socket, or a socket file that a daemon left behind. Starting one is the cure."""


class BusyError(LocateError):
    """A daemon listens and did not take the connection in time: frozen, or beyond 1024 waiting clients."""


class UntrustedError(LocateError):
    """A directory, socket or peer is not provably this user's own; nothing was sent to it."""


class Paths:
    """Every path of one user's daemon. All are absolute strings; nothing here says that they exist."""

    __slots__ = (
        "config_file",
        "database",
        "lock_file",
        "log_dir",
        "log_file",
        "runtime_dir",
        "socket",
        "start_lock",
        "state_dir",
        "stderr_file",
    )

    def __init__(self, state_dir: str, runtime_dir: str, config_file: str) -> None:
        """Derive every path from these three."""
        self.state_dir = state_dir
        self.runtime_dir = runtime_dir
        self.config_file = config_file
        self.socket = self.face("rpc")
        self.lock_file = os.path.join(state_dir, "daemon.lock")
        self.start_lock = os.path.join(state_dir, "start.lock")
        self.database = os.path.join(state_dir, "dragoman.db")
        self.log_dir = os.path.join(state_dir, "log")
        self.log_file = os.path.join(self.log_dir, "daemon.log")
        self.stderr_file = os.path.join(self.log_dir, "daemon.stderr")

    def face(self, name: str) -> str:
        """Return the path of one face's socket; `name` is one of `FACES`."""
        return os.path.join(self.runtime_dir, f"{name}.sock")

    def __repr__(self) -> str:
        """Show the three paths that the others follow from."""
        return f"Paths({self.state_dir!r}, {self.runtime_dir!r}, {self.config_file!r})"


def find_paths(
    env: Mapping[str, str] | None = None, *, platform: str = sys.platform, uid: int | None = None
) -> Paths:
    """Return the paths that `env` (by default this process's own environment) leads to.

    `platform` is a value of `sys.platform`; `uid` defaults to the effective user. Nothing is created; the
    file system is asked only for the state directory's real path. Raises `LocateError` on Windows, and
    when a folder cannot be told because HOME is unset and the user has no home directory either.
    """
    if platform == "win32":
        raise LocateError("Dragoman needs unix sockets; on Windows, use it inside WSL.")
    env = os.environ if env is None else env
    uid = os.geteuid() if uid is None else uid
    library = ("Library", "Application Support")
    mac = platform == "darwin"
    state_home = _folder(env, "XDG_STATE_HOME", library if mac else (".local", "state"), uid)
    config_home = _folder(env, "XDG_CONFIG_HOME", library if mac else (".config",), uid)
    state_dir = os.path.join(state_home, "dragoman")
    config_file = os.path.join(config_home, "dragoman", "config.toml")
    return Paths(state_dir, _runtime_dir(env, state_dir, platform, uid), config_file)


def own_runtime_dir(state_dir: str, *, platform: str = sys.platform, uid: int | None = None) -> str:
    """Return the runtime directory that goes with `state_dir` where there is no XDG_RUNTIME_DIR."""
    return _runtime_dir({}, state_dir, platform, os.geteuid() if uid is None else uid)


def _folder(env: Mapping[str, str], variable: str, default: tuple[str, ...], uid: int) -> str:
    named = env.get(variable, "")
    return named if os.path.isabs(named) else os.path.join(_home(env, uid), *default)


def _home(env: Mapping[str, str], uid: int) -> str:
    home = env.get("HOME", "")
    if os.path.isabs(home):
        return home
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        raise LocateError(
            f"HOME is not set to an absolute path and user {uid} has no home directory."
        ) from None


def _runtime_dir(env: Mapping[str, str], state_dir: str, platform: str, uid: int) -> str:
    longest = 103 if platform == "darwin" else 107
    given = env.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(given):
        runtime = os.path.join(given, "dragoman", state_hash(state_dir))
    else:
        runtime = os.path.join(state_dir, "run")
    if len(os.fsencode(os.path.join(runtime, "rpc.sock"))) <= longest:
        return runtime
    return f"/tmp/dragoman-{uid}-{state_hash(state_dir)}"


def state_hash(state_dir: str) -> str:
    """Return the eight hexadecimal digits that stand for a state directory in a runtime directory."""
    import hashlib

    return hashlib.sha256(os.fsencode(os.path.realpath(state_dir))).hexdigest()[:8]


def check_private_dir(path: str) -> None:
    """Raise `UntrustedError` unless `path` is a directory, not a link, ours, and closed to all others.

    Raises `FileNotFoundError` if there is nothing. Rule: "Sockets" of the trust model.
    """
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        raise UntrustedError(f"{path} is {kind}; expected a directory of our own. Remove it.")
    if found.st_uid != os.geteuid():
        raise UntrustedError(f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()}.")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise UntrustedError(f"{path} is open to other users (mode {mode:04o}). Run: chmod 700 '{path}'")


def check_socket(path: str) -> None:
    """Raise `UntrustedError` unless `path` is a socket owned by us; `FileNotFoundError` if absent."""
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode):
        raise UntrustedError(f"{path} is not a socket. Remove it.")
    if found.st_uid != os.geteuid():
        raise UntrustedError(f"{path} belongs to user {found.st_uid}, not to user {os.geteuid()}.")


def connect(paths: Paths, patience_s: float = CONNECT_PATIENCE_S) -> socket.socket:
    """Connect to the running daemon and return the socket, blocking and without a time limit.

    Looks at the usual socket, then at the one named in the daemon's lock file. `patience_s` (seconds)
    bounds the wait for the connection. Raises `NotRunningError`, `BusyError` or `UntrustedError`.
    """
    try:
        return connect_to(paths.socket, patience_s)
    except NotRunningError:
        elsewhere = read_record(paths).get("socket")
        if not isinstance(elsewhere, str) or elsewhere == paths.socket:
            raise
    return connect_to(elsewhere, patience_s)


def connect_to(path: str, patience_s: float = CONNECT_PATIENCE_S) -> socket.socket:
    """Connect to the socket at `path` after all checks of the trust model; see `connect` for the errors."""
    try:
        check_private_dir(os.path.dirname(path))
        check_socket(path)
    except FileNotFoundError:
        raise NotRunningError(f"No daemon: {path} does not exist.") from None
    except NotADirectoryError:
        raise UntrustedError(f"{path}: a part of this path is not a directory.") from None
    except PermissionError as refused:
        raise UntrustedError(f"{path} cannot be examined: {refused.strerror}.") from None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect(connection, path, patience_s)
        uid = peer_uid(connection)
        if uid != os.geteuid():
            raise UntrustedError(f"The process that listens at {path} runs as user {uid}, not as us.")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, path: str, patience_s: float) -> None:
    # A send timeout of the kernel's, not `settimeout`: a non-blocking connect to a full backlog fails at
    # once (EAGAIN) on Linux, a blocking one waits for room as long as the send timeout says.
    whole = int(patience_s)
    limit = struct.pack("ll", whole, max(1, int((patience_s - whole) * 1e6)))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    try:
        connection.connect(path)
    except OSError as failed:
        if failed.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET):
            raise NotRunningError(f"No daemon: nobody listens at {path}.") from None
        if failed.errno in (errno.EAGAIN, errno.ETIMEDOUT):
            raise BusyError(f"The daemon at {path} took no connection for {patience_s:g} s.") from None
        raise LocateError(f"{path} cannot be connected to: {failed}.") from None
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))


def peer_uid(connection: socket.socket, platform: str = sys.platform) -> int:
    """Return the user id of the process at the other end (SO_PEERCRED; macOS: LOCAL_PEERCRED)."""
    if platform == "darwin":
        return int(struct.unpack("II", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 8))[1])
    return _linux_credentials(connection)[1]


def peer_pid(connection: socket.socket, platform: str = sys.platform) -> int:
    """Return the process id at the other end: of a daemon, the process that called `listen`."""
    if platform == "darwin":
        return int(struct.unpack("i", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))[0])
    return _linux_credentials(connection)[0]


def _linux_credentials(connection: socket.socket) -> tuple[int, int, int]:
    level, name = socket.SOL_SOCKET, getattr(socket, "SO_PEERCRED", 17)
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(level, name, 12))
    return pid, uid, gid


def read_record(paths: Paths) -> dict[str, object]:
    """Return what the daemon wrote into its lock file: ``pid``, ``startTime``, ``socket``, ``version``.

    ``socket`` is None once that daemon is leaving. While the lock is held, the record is its holder's (or
    empty); it outlives a daemon that was killed, so only the lock and the socket say whether one runs.
    Empty if there is none, if it is being written at this moment, or if the file is not ours.
    """
    try:
        file = os.open(paths.lock_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return {}
    try:
        ours = os.fstat(file).st_uid == os.geteuid()
        text = os.read(file, _LOCK_RECORD_BYTES) if ours else b""
    finally:
        os.close(file)
    import json

    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
