"""The daemon's socket in the file system: bind it safely, and take away our own and no other.

Rules ("Sockets" of the trust model): directory 0700, socket 0600, umask 077 around bind, backlog 1024, and
only the holder of the instance lock removes a stale socket, only one that is a socket and ours.
"""

import errno
import os
import socket
import stat

from dragoman.locate import Paths, UntrustedError, check_private_dir, check_socket, own_runtime_dir

from dragomand.process.lock import InstanceLock
from dragomand.process.paths import FolderError, prepare

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel may have a lower bound of its own."""


class Listener:
    """One bound socket and the file it made. `socket` is for the event loop; `path` for clients."""

    def __init__(self, bound: socket.socket, path: str) -> None:
        """Remember which file `bound` made at `path`."""
        made = os.lstat(path)
        self.socket = bound
        self.path = path
        self._file = (made.st_dev, made.st_ino)

    def listen(self) -> None:
        """Let clients connect. An event loop that is given `socket` does it by itself."""
        self.socket.listen(BACKLOG)

    def is_in_place(self) -> bool:
        """Tell whether the path still leads to this socket's own file."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    def withdraw(self) -> list[socket.socket]:
        """Take the socket's file away (only if it is still ours) and return whoever waited at the door.

        After this no new client can come. Those returned were accepted at the last moment; before an idle
        exit there must be none, otherwise their requests would be lost: the daemon serves them, and if it
        wants to go on after all it binds anew. Does not close `socket`.
        """
        if self.is_in_place():
            os.unlink(self.path)
        self.socket.setblocking(False)
        waiting = []
        while True:
            try:
                waiting.append(self.socket.accept()[0])
            except ConnectionAbortedError:
                continue
            except BlockingIOError:
                return waiting
            except OSError as failed:
                if failed.errno == errno.EINVAL:  # it never listened
                    return waiting
                raise

    def close(self) -> None:
        """Withdraw, turn away whoever waited, and close. Does nothing the second time."""
        if self.socket.fileno() >= 0:
            for late in self.withdraw():
                late.close()
            self.socket.close()


def bind(lock: InstanceLock, face: str = "rpc") -> Listener:
    """Bind the socket of `face` in the lock's runtime directory.

    Nobody can connect before it listens: a daemon whose start fails on the way has kept nobody waiting in
    vain. Holding `lock` is what allows a dead daemon's socket to be removed. Call it before threads exist:
    the umask it sets for a moment belongs to the whole process. Raises `UntrustedError` if the directory is
    not private or something that is not our socket is in the way, and `OSError` if the bind fails.
    """
    path = lock.paths.face(face)
    check_private_dir(os.path.dirname(path))
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o077)
    try:
        bound.bind(path)
    except BaseException:
        bound.close()
        raise
    finally:
        os.umask(umask)
    os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
    return Listener(bound, path)


def bind_anew(lock: InstanceLock) -> Listener:
    """Bind again after somebody cleared the runtime directory.

    If that cannot be made any more (XDG_RUNTIME_DIR goes with its user's last logout), the one that goes
    without the variable is used from here on: the lock's record leads there. Raises as `bind`, and
    `FolderError` if neither can be made.
    """
    try:
        prepare(lock.paths)
    except FolderError:
        paths = lock.paths
        lock.paths = Paths(paths.state_dir, own_runtime_dir(paths.state_dir), paths.config_file)
        prepare(lock.paths)
    return bind(lock)


def _remove_stale(path: str) -> None:
    try:
        check_socket(path)
    except FileNotFoundError:
        return
    except UntrustedError as strange:
        raise UntrustedError(f"{strange} It is in the way of the daemon's socket.") from None
    os.unlink(path)
