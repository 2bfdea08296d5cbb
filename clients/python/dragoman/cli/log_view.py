"""The daemon's log, whose lines are JSON objects, for people's eyes."""

import json
import os
import subprocess
import sys

from dragoman.cli import exits
from dragoman.cli.terminal import printable
from dragoman.errors import DragomanError

_BLOCK = 1 << 16
_SHOWN_APART = ("time", "level", "logger", "message", "exception")


class NoLogError(DragomanError):
    """There is no log, or it cannot be read."""


def tail(file: str, count: int) -> list[str]:
    """Return the last *count* lines of *file*, reading only its end. Raises `NoLogError`."""
    try:
        with open(file, "rb") as log:
            at = log.seek(0, os.SEEK_END)
            data = b""
            while at > 0 and data.count(b"\n") <= count:
                size = min(_BLOCK, at)
                at = log.seek(at - size)
                data = log.read(size) + data
    except FileNotFoundError:
        raise NoLogError(f"There is no log yet: {file}") from None
    except OSError as failed:
        raise NoLogError(f"{file} cannot be read: {failed.strerror}") from None
    lines = data.decode(errors="replace").splitlines()
    return lines[-count:] if count else []


def follow(file: str, count: int, *, as_json: bool) -> int:
    """Print the last *count* lines and what is written from now on, until interrupted.

    The work is done by the system's `tail -F`, which waits for the file, notices rotation, and does not poll
    where the system can tell of changes.
    """
    command = ["tail", "-n", str(count), "-F", file]
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError as failed:
        raise NoLogError(f"`tail` is needed to follow the log and cannot be run: {failed.strerror}") from None
    assert child.stdout is not None
    try:
        for line in child.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            sys.stdout.write((text if as_json else readable(text)) + "\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    finally:
        child.terminate()
        child.stdout.close()
        child.wait()
    return exits.OK


def parsed(line: str) -> object:
    """Return a line's JSON object, or the line itself if it is none."""
    try:
        return json.loads(line)
    except ValueError:
        return line


def readable(line: str) -> str:
    """Return a line for people: time, level, message, then the other fields as `name=value`."""
    entry = parsed(line)
    if not isinstance(entry, dict):
        return printable(line)
    rest = " ".join(f"{name}={value}" for name, value in entry.items() if name not in _SHOWN_APART)
    parts = (str(entry.get("time", "")), f"{entry.get('level', ''):<7}", str(entry.get("message", "")), rest)
    text = " ".join(part for part in parts if part.strip())
    trace = entry.get("exception")
    return printable(f"{text}\n{trace}" if trace else text)
