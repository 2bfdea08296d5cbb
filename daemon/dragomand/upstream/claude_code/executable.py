"""Which Claude Code is started: the one the settings name, the one bundled with the Python SDK, or PATH's.

The SDK's package is only looked for, never imported: importing it costs half a second and much memory.
"""

import importlib.util
import os
import shutil

from dragomand.upstream.interface import Failure, UpstreamError

_SDK = "claude_agent_sdk"
_INSTALL = "Install it with `pip install 'dragoman[daemon]'`, or name your own in the setting claude.path."

_CORRECT = "Correct it and run: dragoman daemon restart"


def find_executable(configured: str | None, path: str | None) -> str:
    """Return the absolute path of the executable to start.

    *configured* is the setting and is used or complained about, never passed over. *path* is the PATH to
    search last; only its absolute folders count, since a relative one would be a folder of the client's.
    Raises `UpstreamError` (`missing`) with what to do.
    """
    if configured:
        if not os.path.isabs(configured):
            raise _missing(
                f"The setting claude.path is {configured!r}; it must be an absolute path. {_CORRECT}"
            )
        if not _is_program(configured):
            found = "is not executable" if os.path.exists(configured) else "does not exist"
            raise _missing(f"The setting claude.path names {configured}, which {found}. {_CORRECT}")
        return configured
    bundled = find_bundled()
    if bundled is not None:
        return bundled
    folders = [folder for folder in (path or "").split(os.pathsep) if os.path.isabs(folder)]
    found_on_path = shutil.which("claude", path=os.pathsep.join(folders)) if folders else None
    if found_on_path is None:
        raise _missing(f"Claude Code was not found, neither bundled nor as `claude` on PATH. {_INSTALL}")
    return found_on_path


def find_bundled() -> str | None:
    """Return the executable inside the installed SDK, or None."""
    spec = importlib.util.find_spec(_SDK)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        program = os.path.join(folder, "_bundled", "claude")
        if _is_program(program):
            return program
    return None


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _missing(message: str) -> UpstreamError:
    return UpstreamError(Failure("missing", message))
