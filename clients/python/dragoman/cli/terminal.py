"""What the terminal can take: colours, and text that must not command it."""

import os
import re
import sys
from typing import TextIO

_COMMANDING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return *text* without control characters but newline and tab.

    What a model or a file says goes to a terminal, where an escape sequence could move the cursor, set the
    title or fill the clipboard, and where marks of direction could show a command in another order than the
    one in which it will run.
    """
    return _COMMANDING.sub("", text.replace("\r\n", "\n"))


def is_terminal(stream: TextIO) -> bool:
    """Whether *stream* is a terminal; False for one that is closed."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def coloured(stream: TextIO) -> bool:
    """Whether *stream* should get colours: a terminal, no NO_COLOR, not a dumb one."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def dim(text: str, stream: TextIO | None = None) -> str:
    """Return *text* in a quieter colour where *stream* (default stderr) shows colours."""
    return f"\x1b[2m{text}\x1b[22m" if coloured(stream or sys.stderr) else text
