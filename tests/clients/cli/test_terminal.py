import io
import sys

import pytest
from dragoman.cli import terminal


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_text_cannot_command_the_terminal() -> None:
    assert terminal.printable("a\x1b]0;title\x07b\r\nc\td\x9b2J\x7f\x00é\n") == "a]0;titleb\nc\td2Jé\n"


def test_marks_of_direction_cannot_reorder_a_command() -> None:
    assert terminal.printable("rm \u202egnp.txt\u202c \u2067x\u2069 שלום") == "rm gnp.txt x שלום"


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.dim("x", Tty()) == "\x1b[2mx\x1b[22m"
    assert terminal.dim("x", io.StringIO()) == "x"
    monkeypatch.setattr(sys, "stderr", Tty())
    assert terminal.dim("x") != "x"
    monkeypatch.setenv("TERM", "dumb")
    assert terminal.dim("x", Tty()) == "x"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.dim("x", Tty()) == "x"


def test_a_closed_stream_is_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    assert not terminal.is_terminal(stream)
