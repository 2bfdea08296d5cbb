"""Which command was meant, decided before anything is imported.

`rpc`, `stdio` and `locate` are what programs start, often and in a hurry: they use the standard library
alone. Everything else is for people and needs click and rich.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_INSTALL = (
    "dragoman: this command needs the packages click and rich. Run: pip install 'dragoman[cli]'\n"
    "The commands rpc, stdio and locate work without them."
)


def main(argv: "Sequence[str] | None" = None) -> int:
    """Run the command line *argv* (default: this process's) and return the exit status."""
    _open_what_is_closed()
    try:
        status = _run(argv)
        sys.stdout.flush()
    except OSError as failed:  # the output cannot be written: a full disk, for instance
        if not isinstance(failed, BrokenPipeError):  # whoever has read enough need not be told
            print(f"dragoman: {failed}.", file=sys.stderr)
        # The interpreter's own flush at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 74
    return status


def _open_what_is_closed() -> None:
    """Give a standard stream that the caller closed something to be, before a socket gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # as long as the process


def _run(argv: "Sequence[str] | None") -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else ""
    if command == "rpc":
        from dragoman.cli import rpc

        return rpc.main(arguments[1:])
    if command == "stdio":
        from dragoman.cli import stdio

        return stdio.main(arguments[1:])
    if command == "locate":
        from dragoman.cli import locate

        return locate.main(arguments[1:])
    try:
        import click
        import rich
    except ImportError:
        print(_INSTALL, file=sys.stderr)
        return 69
    del click, rich
    from dragoman.cli import app

    return app.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
