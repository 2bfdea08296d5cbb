"""The exit statuses of `dragoman`, the same in every command."""

OK = 0
"""Done."""
FAILED = 1
"""The daemon answered with an error, or the turn failed."""
USAGE = 2
"""The command line was wrong; nothing was sent."""
NOT_RUNNING = 3
"""`daemon status`: there is no daemon."""
UNAVAILABLE = 69
"""No daemon could be found, started, reached or trusted (EX_UNAVAILABLE)."""
LOST = 74
"""The connection ended before the answer came, or the output could not be written (EX_IOERR)."""
TIMEOUT = 124
"""`--timeout` passed before the answer came; the request was cancelled."""
INTERRUPTED = 130
"""Ctrl-C; the request was cancelled."""
