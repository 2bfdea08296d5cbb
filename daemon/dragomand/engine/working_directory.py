"""Which folder a session may work in: a working directory is code execution, so it is checked once, here."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from .errors import EngineError


def check(cwd: str, roots: Sequence[str]) -> Path:
    """Return the real path of *cwd*, or raise `EngineError` `invalid_cwd` saying what is wrong with it.

    It must be absolute, exist, be a directory of the daemon's own user, and lie in one of *roots* (real
    paths are compared; no roots: unrestricted). Rule: "Working directory" of the trust model.
    """
    if "\0" in cwd or not os.path.isabs(cwd):
        raise _refused(cwd, "not_absolute", "expected an absolute path")
    try:
        real = os.path.realpath(cwd, strict=True)
        found = os.stat(real)
    except FileNotFoundError:
        raise _refused(cwd, "missing", "there is no such directory") from None
    except OSError as failed:
        raise _refused(cwd, "unreadable", f"it cannot be examined ({failed.strerror})") from None
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(cwd, "not_a_directory", "expected a directory, this is a file")
    if found.st_uid != os.geteuid():
        raise _refused(cwd, "not_owned", f"it belongs to user {found.st_uid}, expected user {os.geteuid()}")
    allowed = [os.path.realpath(root) for root in roots]
    if allowed and not any(os.path.commonpath((real, root)) == root for root in allowed):
        raise _refused(cwd, "outside_roots", f"it is outside session.roots ({', '.join(roots)})")
    return Path(real)


def _refused(cwd: str, reason: str, text: str) -> EngineError:
    return EngineError("invalid_cwd", f"cwd {cwd!r} cannot be used: {text}.", path=cwd, reason=reason)


def check_same(asked: str | None, kept: str | None) -> None:
    """Raise `invalid_cwd` when a session is to be continued in another folder than its own."""
    if asked is not None and kept is not None and ("\0" in asked or os.path.realpath(asked) != kept):
        raise _refused(
            asked, "other_session", f"this session works in {kept}; leave cwd out, or start a new session"
        )
