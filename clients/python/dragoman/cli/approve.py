"""Asking the person at the terminal whether a tool may run."""

import json
import sys

from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams

from dragoman.cli.terminal import dim, printable

_SHOWN = 600
_CHOICES = "  Allow? [y]es, [n]o, [a]lways this tool, [s]how all, or say what to do instead: "


class Approver:
    """Puts each question on stderr and reads the answer from stdin; remembers what was always allowed."""

    def __init__(self) -> None:
        """Nothing is allowed yet."""
        self._always: set[str] = set()

    def __call__(self, asked: PermissionRequestParams) -> PermissionDecision:
        """Ask, until the answer can be understood; the end of input is a denial."""
        if asked.tool_name in self._always:
            return PermissionDecision(decision="allow")
        self._put(asked, _SHOWN)
        while True:
            sys.stderr.write(_CHOICES)
            sys.stderr.flush()
            line = sys.stdin.readline()
            word = line.strip()
            match word.lower():
                case "y" | "yes":
                    return PermissionDecision(decision="allow")
                case "a" | "always":
                    self._always.add(asked.tool_name)
                    return PermissionDecision(decision="allow")
                case "n" | "no":
                    return PermissionDecision(decision="deny", message="The user said no.")
                case "s" | "show":
                    self._put(asked, None)
                case _ if not line:
                    return PermissionDecision(decision="deny", message="Nobody is there to decide.")
                case _ if len(word) > 3:
                    return PermissionDecision(decision="deny", message=word)

    def _put(self, asked: PermissionRequestParams, limit: int | None) -> None:
        wanted = printable(json.dumps(asked.input, ensure_ascii=False, indent=2))
        if limit is not None and len(wanted) > limit:
            wanted = f"{wanted[:limit]} … ({len(wanted)} characters in all)"
        reason = f" ({printable(asked.reason)})" if asked.reason else ""
        sys.stderr.write(f"\nClaude wants to use {printable(asked.tool_name)}{reason}:\n{dim(wanted)}\n")
