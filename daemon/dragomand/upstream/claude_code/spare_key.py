"""Which spare processes fit: everything about a start that cannot be changed later, as one digest.

Part of it is what the command line, the environment and the first request say. The other part is what Claude
Code looked up by itself while it started, and would look up anew if it were started now: its own executable,
the user's settings, and where the repository stands (its prompt tells the branch and the last commits).
"""

import hashlib
import os
from collections.abc import Iterable, Mapping

import msgspec

from dragomand.process.children import Command

_USER_FILES = ("settings.json", "CLAUDE.md", ".credentials.json", "agents", "skills", "commands", "rules")
_REPOSITORY_FILES = ("HEAD", os.path.join("logs", "HEAD"))

_encode = msgspec.json.Encoder(order="deterministic").encode


def key_of(command: Command, initialize: Mapping[str, object], folder: str | None) -> str:
    """Return the digest of a start by *command* and *initialize*; *folder* None: of no folder in particular.

    Looks at a few files' times, so it takes some 50 µs.
    """
    secrets = {name: hashlib.sha256(value).hexdigest() for name, value in command.secrets.items()}
    told = [list(command.argv), dict(command.env), command.cwd, secrets, command.open_files, dict(initialize)]
    return _digest([told, list(_stamps(_repository(folder))) if folder else []])


def world_of(executable: str, config_dir: str, secret: bytes | None) -> str:
    """Return the digest of what all spares share: the executable, the user's settings, the credential.

    When it changes, every spare is out of date.
    """
    files = [executable, *(os.path.join(config_dir, name) for name in _USER_FILES)]
    return _digest([list(_stamps(files)), hashlib.sha256(secret or b"").hexdigest()])


def _digest(value: object) -> str:
    return hashlib.sha256(_encode(value)).hexdigest()


def _stamps(files: Iterable[str]) -> Iterable[tuple[str, int, int, int] | tuple[str]]:
    """Yield what changes of a file when it is written or replaced."""
    for file in files:
        try:
            found = os.stat(file)
        except OSError:
            yield (file,)
        else:
            yield file, found.st_mtime_ns, found.st_size, found.st_ino


def _repository(folder: str) -> list[str]:
    """Return the files that change with each commit and checkout of the repository that *folder* is in."""
    while True:
        found = os.path.join(folder, ".git")
        if os.path.lexists(found):
            return [found, *(os.path.join(found, name) for name in _REPOSITORY_FILES)]
        above = os.path.dirname(folder)
        if above == folder:
            return []
        folder = above
