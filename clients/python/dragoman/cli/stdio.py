"""`dragoman stdio`: what an editor starts as its server; see `dragoman.forward`."""

import sys

from dragoman import forward

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_HELP = """\
Usage: dragoman stdio

Copy bytes between stdin/stdout and the shared daemon, starting the daemon if there is none.
The protocol is JSON-RPC 2.0, framed by Content-Length headers or one message a line.

Exit status: 0 both sides finished, 1 the connection broke, 2 usage, 69 no daemon,
130 and 143 stopped by a signal.
"""


def main(arguments: "Sequence[str]") -> int:
    """Run `dragoman stdio` with *arguments* (none but `--help`) and return the exit status."""
    if list(arguments) in (["--help"], ["-h"]):
        sys.stdout.write(_HELP)
        return 0
    if arguments and list(arguments) != ["--stdio"]:  # what vscode-languageclient adds by itself
        text = f"dragoman stdio: unexpected argument {arguments[0]!r}; see dragoman stdio --help"
        print(text, file=sys.stderr)
        return 2
    return forward.stdio()
