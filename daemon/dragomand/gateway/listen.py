"""The gateway's sockets: a unix socket in our private folder, and a loopback port where that cannot be used.

The name has our process id in it, so that no lock is needed: what a process of the same number left behind is
dead, and so is whatever else refuses a connection.
"""

import contextlib
import os
import re
import socket
import sys

from dragoman.locate import check_private_dir, check_socket

BACKLOG = 1024
_LONGEST_PATH = 107 if sys.platform == "linux" else 103
_NAME = re.compile(r"gw-(\d+)\.sock")


def bind_unix(runtime_dir: str) -> socket.socket | None:
    """Return a listening socket in *runtime_dir*; None if its path would be too long for one.

    Raises `UntrustedError` if others can reach the folder, or something strange is in the way.
    """
    check_private_dir(runtime_dir)
    _sweep(runtime_dir)
    path = os.path.join(runtime_dir, f"gw-{os.getpid()}.sock")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        return None
    # Nobody else can enter the folder, so that the mode may follow the bind: the umask is the process's.
    bound = _listening(socket.AF_UNIX, path)
    os.chmod(path, 0o600)
    return bound


def bind_loopback() -> socket.socket:
    """Return a socket that listens on a free port of 127.0.0.1."""
    return _listening(socket.AF_INET, ("127.0.0.1", 0))


def is_in_place(bound: socket.socket) -> bool:
    """Tell whether the unix socket's path is there still (runtime folders are cleared at log-out)."""
    return os.path.exists(bound.getsockname())


def withdraw(bound: socket.socket) -> None:
    """Close a socket; of a unix socket the file goes too."""
    if bound.fileno() < 0:
        return
    if bound.family == socket.AF_UNIX:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(bound.getsockname())
    bound.close()


def _listening(family: socket.AddressFamily, address: "str | tuple[str, int]") -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.bind(address)
        bound.listen(BACKLOG)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _sweep(runtime_dir: str) -> None:
    """Remove the sockets of daemons that are no more."""
    for name in os.listdir(runtime_dir):
        found = _NAME.fullmatch(name)
        if found is None:
            continue
        path = os.path.join(runtime_dir, name)
        with contextlib.suppress(FileNotFoundError):
            check_socket(path)
            if int(found[1]) == os.getpid() or _is_dead(path):
                os.unlink(path)


def _is_dead(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False
