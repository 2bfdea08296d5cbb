"""The daemon's folders: the client's rule (`dragoman.locate`), plus making them, each mode 0700.

The process-wide umask stays as it is: Claude Code inherits it and writes the user's own files with it.
"""

import os

from dragoman.launch import make_private_dir
from dragoman.locate import LocateError, Paths, UntrustedError, find_paths

__all__ = ["FolderError", "Paths", "UntrustedError", "find_paths", "prepare"]


class FolderError(LocateError):
    """A folder that the daemon needs cannot be made."""


def prepare(paths: Paths) -> None:
    """Create the state, log and runtime directories, or check that they are private.

    Raises `UntrustedError` for one that others can reach, and `FolderError`, naming the variable to look at,
    for one that cannot be made (a read-only home; an XDG_RUNTIME_DIR that is gone or is another user's).
    """
    _make(paths.state_dir, "XDG_STATE_HOME or HOME")
    _make(paths.log_dir, "XDG_STATE_HOME or HOME")
    parent = os.path.dirname(paths.runtime_dir)
    if os.path.basename(parent) == "dragoman" and parent != paths.state_dir:
        # $XDG_RUNTIME_DIR/dragoman. The variable's own folder is the system's to make, never ours: where it
        # is missing, a folder made in its place would have the wrong owner for the next login.
        if not os.path.isdir(os.path.dirname(parent)):
            raise FolderError(
                f"XDG_RUNTIME_DIR names {os.path.dirname(parent)}, which is not a directory. "
                "Unset the variable or log in properly (su and sudo keep another user's)."
            )
        _make(parent, "XDG_RUNTIME_DIR")
    _make(paths.runtime_dir, "XDG_RUNTIME_DIR")


def _make(path: str, variable: str) -> None:
    try:
        make_private_dir(path)
    except OSError as failed:
        raise FolderError(f"{path} cannot be made ({failed.strerror}). Check {variable}.") from None
