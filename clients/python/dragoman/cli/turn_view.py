"""A turn on the terminal: the answer on stdout as it grows, everything else on stderr."""

import sys

from dragoman_protocol.query import QueryRunResult
from dragoman_protocol.stream import Event, Retrying, ToolResult, ToolUse, Waiting

from dragoman.answer import GrowingText
from dragoman.cli.terminal import dim, is_terminal, printable

_SHOWN = 100


class TurnView:
    """Shows the events of one turn."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._growing = GrowingText()
        self._to_terminal = is_terminal(sys.stdout)
        self._talks = is_terminal(sys.stderr)
        self._last = "\n"

    def show(self, event: Event) -> None:
        """Show what *event* adds."""
        text = self._growing.new_text(event)
        if text:
            self._write(text)
        elif self._talks:
            note = _note(event)
            if note:
                self.end_line()
                sys.stderr.write(dim(printable(note)) + "\n")
                sys.stderr.flush()

    def end_line(self) -> None:
        """End the answer's last line if it is open."""
        if self._last != "\n":
            self._write("\n")

    def finish(self, result: QueryRunResult) -> None:
        """Show the end: the whole answer if nothing of it was shown, and what it cost."""
        if not self._growing.said and result.text:
            self._write(result.text)
        self.end_line()
        if self._talks:
            sys.stderr.write(dim(printable(summary(result))) + "\n")

    def _write(self, text: str) -> None:
        self._last = text[-1]
        sys.stdout.write(printable(text) if self._to_terminal else text)
        sys.stdout.flush()


def _note(event: Event) -> str:
    match event:
        case ToolUse():
            return f"● {event.name} {_gist(event.input)}"
        case ToolResult(is_error=True):
            return f"  ✗ {_line(str(event.content))}"
        case Waiting():
            return f"Waiting, number {event.position}: {event.reason}"
        case Retrying():
            return f"Trying again ({event.category}, attempt {event.attempt})"
    return ""


def _gist(given: dict[str, object]) -> str:
    for name in ("command", "file_path", "path", "pattern", "url", "query", "description"):
        if isinstance(given.get(name), str):
            return _line(str(given[name]))
    return _line(", ".join(f"{name}={value}" for name, value in given.items()))


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def summary(result: QueryRunResult) -> str:
    """Return one line: model, time, tokens, estimated cost, session."""
    parts = [result.model or result.upstream, f"{result.duration_ms / 1000:.1f} s"]
    parts.append(f"{result.usage.input_tokens} in, {result.usage.output_tokens} out")
    if result.cost_usd is not None:
        parts.append(f"about ${result.cost_usd:.4f}")
    parts.append(f"session {result.session_id}")
    return " · ".join(parts)
