"""What must not be read in a log line or in an error's data: credentials, wherever they got in.

One redactor for both. It knows the shapes of secrets, and by heart the secrets that this daemon holds.
Prompts and answers are not its business: they are never logged as text, only as `size_of`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "[redacted]"
"""What stands where a secret stood."""

SECRET_VARIABLES = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
)
"""The environment variables whose values are secrets."""

_SHORTEST_KNOWN = 6
_SHAPES = re.compile(
    r"""
    sk-ant-[\w\-]{4,}                                         # a key or token of Anthropic's
    | (?P<before>
        (?:authorization|api[_-]?key|auth[_-]?token|oauth[_-]?token)["']?\s*[:=]\s*["']?
          (?:(?:bearer|basic)\s+)?                            # a header or setting that carries one
        | \b(?:bearer|basic)\s+(?=[\w\-.~+/=]{16})            # without its header
        | \b[a-z][a-z0-9+.\-]{0,20}://(?=[^\s/?\#@]+@)             # credentials in a URL
      )
      (?P<secret>[^\s"',;@]+(?:@(?=\S))?)
    """,
    re.VERBOSE | re.IGNORECASE,
)


class Redactor:
    """Takes a text and returns it without secrets: `redact(text)`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Know `secrets` by heart, beside the shapes. Values under 6 characters are ignored."""
        known = sorted({each for each in secrets if len(each) >= _SHORTEST_KNOWN}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """Return `text` with every secret replaced by `HIDDEN`."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _SHAPES.sub(_hide, text)

    def value(self, value: Any) -> Any:
        """Return a JSON value with every text in it redacted, keys included."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return value

    def __repr__(self) -> str:
        """Say nothing of what is known."""
        return "Redactor(…)"


def secrets_of(env: Mapping[str, str]) -> list[str]:
    """Return the secret values of an environment."""
    return [env[name].strip() for name in SECRET_VARIABLES if env.get(name, "").strip()]


def size_of(text: str | bytes) -> str:
    """Return what a log line says of a prompt or answer: its size and nothing else."""
    if isinstance(text, bytes):
        return f"<{len(text)} bytes>"
    return f"<{len(text)} characters>"


def _hide(found: re.Match[str]) -> str:
    before = found["before"] or ""
    at = "@" if (found["secret"] or "").endswith("@") else ""
    return f"{before}{HIDDEN}{at}"
