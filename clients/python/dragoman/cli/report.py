"""What is told when something failed, and with which exit status."""

import os
import sys

import msgspec

from dragoman.cli import exits
from dragoman.cli.terminal import printable
from dragoman.errors import (
    AuthFailedError,
    AuthRequiredError,
    ConnectionClosedError,
    DeadlineExceededError,
    DragomanError,
    InternalError,
    LocateError,
    RequestCancelledError,
    RequestError,
    RequestTimeoutError,
)


def report(error: DragomanError, *, as_json: bool = False) -> int:
    """Tell *error* on stderr, for people or as one line of JSON, and return the exit status."""
    if as_json:
        sys.stderr.write(error_json(error).decode() + "\n")
    else:
        sys.stderr.write(f"dragoman: {printable(str(error))}\n")
        for line in _advice(error):
            sys.stderr.write(f"  {printable(line)}\n")
    sys.stderr.flush()
    return exit_status(error)


def error_json(error: DragomanError) -> bytes:
    """Return the error as `dragoman rpc` prints it: `code` where it has one, `message`, `data.kind`."""
    if isinstance(error, RequestError):
        return msgspec.json.encode(error.body())
    return msgspec.json.encode({"message": str(error), "data": {"kind": _kind(error)}})


def exit_status(error: DragomanError) -> int:
    """Return the exit status that belongs to *error*; see `exits`."""
    match error:
        case LocateError():
            return exits.UNAVAILABLE
        case RequestTimeoutError() | DeadlineExceededError():
            return exits.TIMEOUT
        case RequestCancelledError():
            return exits.INTERRUPTED
        case ConnectionClosedError():
            return exits.LOST
    return exits.FAILED


def _kind(error: DragomanError) -> str:
    if isinstance(error, LocateError):
        return "no_daemon"
    return "timeout" if isinstance(error, RequestTimeoutError) else "bad_answer"


def _advice(error: DragomanError) -> list[str]:
    data = getattr(error, "data", None)
    told = (getattr(data, "next_step", None), getattr(data, "detail", None))
    advice = [str(step) for step in told if step and str(step) not in str(error)]
    if isinstance(error, AuthRequiredError) and os.environ.get("ANTHROPIC_API_KEY"):
        advice.append("ANTHROPIC_API_KEY is set here, but was not where the daemon was started. "
                      "Run: dragoman daemon restart")  # fmt: skip
    if isinstance(error, AuthFailedError):
        advice.append("Correct the credential where the daemon gets it, then run: dragoman daemon restart")
    if isinstance(error, ConnectionClosedError):
        advice.append("If the daemon was killed, the next command starts it again. See: dragoman daemon logs")
    if isinstance(error, InternalError):
        request = getattr(data, "request_id", None)
        advice.append(f"{f'Request {request}. ' if request else ''}See: dragoman daemon logs")
    retry = getattr(data, "retry_after_ms", None)
    if retry:
        advice.append(f"It can be tried again in {retry / 1000:.0f} s.")
    return advice
