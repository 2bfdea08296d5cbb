"""Agents as files: Markdown with front matter, in the form of Claude Code's own.

The front matter is read leniently, as Claude Code reads it: `key: value` where the value is the rest of the
line whatever is in it, lists with commas, in brackets or one item a line, and block texts (`|`, `>`). Keys
that are not known are passed over, so a file made for Claude Code works here.
"""

import os
import re
import stat
from pathlib import Path
from typing import Any

import msgspec
from dragoman_protocol.agent import AgentDefinition

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
"""What an agent may be called."""
MAX_BYTES = 256 * 1024
MAX_FILES = 500
"""Files of a folder beyond these are reported, not read."""

_LISTS = ("tools", "disallowedTools", "skills", "examples")
_NUMBERS = ("maxTurns",)
_SWITCHES = ("background",)
_TEXTS = ("description", "model", "effort", "permissionMode")


class AgentFileError(ValueError):
    """A file is no agent; the text says why."""


def parse(text: str, stem: str) -> tuple[str, AgentDefinition]:
    """Return the agent's name (*stem* unless the file says another) and definition.

    Raises `AgentFileError`.
    """
    head, body = _parts(text)
    fields = _fields(head)
    name = _text(fields.get("name", stem))
    if not NAME.match(name):
        raise AgentFileError(
            f"the name {name[:80]!r} is not allowed: letters, digits, - and _, at most 64, no other first"
        )
    if not body.strip():
        raise AgentFileError("there is no prompt below the front matter")
    given: dict[str, Any] = {"prompt": body.strip(), "description": ""}
    for key in (*_TEXTS, *_LISTS, *_NUMBERS, *_SWITCHES):
        if key in fields:
            given[key] = _value(key, fields[key])
    if not given["description"]:
        raise AgentFileError("the front matter has no `description`")
    try:
        return name, msgspec.convert(given, AgentDefinition, strict=False)
    except msgspec.ValidationError as wrong:
        raise AgentFileError(f"the front matter does not fit: {wrong}") from None


def read(path: Path) -> tuple[str, AgentDefinition]:
    """Read one file. Raises `AgentFileError`, also for one that others could have written."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as opened:
            found = os.fstat(opened.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise AgentFileError("it is not a regular file")
            if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
                raise AgentFileError("others may write it; it must be the user's own (chmod go-w)")
            if found.st_size > MAX_BYTES:
                raise AgentFileError(f"it has {found.st_size} bytes; at most {MAX_BYTES} are read")
            text = opened.read(MAX_BYTES + 1).decode()
    except OSError as failed:
        raise AgentFileError(f"it cannot be read: {failed.strerror}") from None
    except UnicodeDecodeError:
        raise AgentFileError("it is not UTF-8") from None
    return parse(text, path.stem)


def _parts(text: str) -> tuple[list[str], str]:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0].rstrip() != "---":
        raise AgentFileError("it does not begin with front matter (a line `---`)")
    for at, line in enumerate(lines[1:], 1):
        if line.rstrip() == "---":
            return lines[1:at], "\n".join(lines[at + 1 :])
    raise AgentFileError("the front matter has no end (a second line `---`)")


def _fields(lines: list[str]) -> dict[str, str | list[str]]:
    """Return the keys; a value is a text, or the lines indented below its key."""
    fields: dict[str, str | list[str]] = {}
    below: list[str] | None = None
    for number, line in enumerate(lines, 2):
        if below is not None and (not line.strip() or line[0] in " \t" or line.startswith("- ")):
            below.append(line)
            continue
        if not line.strip() or line.startswith("#"):
            continue
        key, colon, value = line.partition(":")
        if not colon or line[0] in " \t-":
            raise AgentFileError(f"line {number} is no `key: value`: {line[:80]!r}")
        value = value.strip()
        below = None
        if value in ("", "|", ">", "|-", ">-"):
            below = []
            fields[key.strip()] = below
        else:
            fields[key.strip()] = value
    return fields


def _value(key: str, found: str | list[str]) -> Any:
    return _list(found) if key in _LISTS else _text(found)


def _text(found: str | list[str]) -> str:
    if isinstance(found, list):
        return "\n".join(line.strip() for line in found).strip()
    if len(found) > 1 and found[0] == found[-1] and found[0] in "\"'":
        return found[1:-1].replace('\\"', '"') if found[0] == '"' else found[1:-1].replace("''", "'")
    return found


def _list(found: str | list[str]) -> list[str]:
    if isinstance(found, list):
        items = [line.strip().removeprefix("- ") for line in found if line.strip()]
    else:
        # Not at a comma inside of brackets: `Bash(git log, git diff)` is one.
        items = re.split(r",(?![^(]*\))", found.removeprefix("[").removesuffix("]"))
    return [_text(item.strip()) for item in items if item.strip()]
