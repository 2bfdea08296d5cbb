"""Claude Code's own record of a conversation: how many messages it holds, and whether a certain one.

It is foreign data: one JSON object a line under ``projects/<folder>/<session>.jsonl`` of its configuration
folder, perhaps torn at the end. What cannot be found or read makes the count unknown, never an error.
"""

import contextlib
import os
import re

import msgspec

_MESSAGES = ("user", "assistant")

REHEARSED = "dragoman-rehearsal"
"""Is in the messages of a turn that was taken back before the conversation began (`rehearsal`)."""

_REHEARSED = re.compile(REHEARSED.encode() + rb"-[0-9a-f]{16}").search


class _Row(msgspec.Struct, rename="camel"):
    type: str = ""
    is_sidechain: bool = False
    uuid: str | None = None


_decode = msgspec.json.Decoder(_Row).decode


class Transcript:
    """The record of one session; remembers how far it has been counted. Blocks: call it in a thread."""

    def __init__(self, config_dir: str, session_id: str, holds: str | None = None) -> None:
        """Look for *session_id* under *config_dir*; *holds* is the id of a message that it should have."""
        self._config_dir = config_dir
        self._session_id = session_id
        self._path: str | None = None
        self._offset = 0
        self._count = 0
        self._holds = holds
        self.complete = holds is None
        """Whether that message was among those counted."""
        self.last: str | None = None
        """The id of the last message counted."""

    def of(self, session_id: str) -> "Transcript":
        """Return the record of another session in the same configuration folder."""
        return Transcript(self._config_dir, session_id)

    def count(self) -> int | None:
        """Return how many messages there are, those of sub-agents left out; None if there is no record."""
        path = self._path = self._path or self._find()
        if path is None:
            return None
        try:
            with open(path, "rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    self._offset += len(line)
                    if not _REHEARSED(line):
                        self._take(line)
        except OSError:
            return None
        return self._count

    def remove(self) -> None:
        """Delete the record: nothing was ever said. Does nothing if there is none, or it cannot be."""
        if (path := self._path or self._find()) is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _take(self, line: bytes) -> None:
        row = _message(line)
        if row is not None:
            self._count += 1
            self.last = row.uuid or self.last
            self.complete = self.complete or row.uuid == self._holds

    def _find(self) -> str | None:
        name = f"{self._session_id}.jsonl"
        try:
            with os.scandir(os.path.join(self._config_dir, "projects")) as folders:
                for folder in folders:
                    if os.path.isfile(path := os.path.join(folder.path, name)):
                        return path
        except OSError:
            return None
        return None


def _message(line: bytes) -> _Row | None:
    try:
        row = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return row if row.type in _MESSAGES and not row.is_sidechain else None


def config_dir(env: dict[str, str]) -> str:
    """Return the configuration folder that Claude Code uses in the environment *env*."""
    return env.get("CLAUDE_CONFIG_DIR") or os.path.join(env.get("HOME", "/"), ".claude")
