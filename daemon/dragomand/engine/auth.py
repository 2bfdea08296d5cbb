"""Which credential there is, answered from memory (requirements 01.2 to 01.6, 01.11, 01.21, 01.32).

First form: the daemon's own `ANTHROPIC_API_KEY`, then Claude Code's own login, whose presence alone is looked
at and which is never read. No method returns a secret.
"""

import os
from collections.abc import Mapping

from dragoman_protocol.auth import AuthStatusResult, CredentialSource, Provider

from .errors import EngineError

LOGIN_FILE = ".credentials.json"
"""Claude Code's own file in its configuration folder; where it is, somebody has logged in."""


_VARIABLES: dict[Provider, str] = {"bedrock": "CLAUDE_CODE_USE_BEDROCK", "vertex": "CLAUDE_CODE_USE_VERTEX"}


class Auth:
    """Holds the credential for the daemon's life."""

    def __init__(
        self, *, api_key: str | None, environment: Mapping[str, str], claude_config_dir: str
    ) -> None:
        """Use *api_key* if it is not empty; *environment* may name a provider (`CLAUDE_CODE_USE_…`)."""
        self._api_key = api_key or None
        self._provider = _provider(environment)
        self._login_file = os.path.join(claude_config_dir, LOGIN_FILE)
        self._logged_in = os.path.exists(self._login_file)

    def api_key(self) -> str | None:
        """Return the key for the upstream, which must not keep it; None without one."""
        return self._api_key

    @property
    def credential(self) -> str:
        """Which credential pays for turns and calls, by a name that reveals nothing of it."""
        return "apiKey" if self._api_key is not None else "claudeLogin"

    def status(self) -> AuthStatusResult:
        """Return what is known, without starting a process or reading a file."""
        source = self._source()
        return AuthStatusResult(
            authenticated=source != "none",
            source=source,
            provider=self._provider,
            token_present=self._api_key is not None,
            next_step=None if source != "none" else self._next_step(),
        )

    def require(self) -> None:
        """Raise `auth_required`, with what to do next, unless there is a credential.

        Somebody may have logged in since the daemon started, so without one the disk is looked at again.
        """
        if self._source() != "none":
            return
        self._logged_in = os.path.exists(self._login_file)
        if self._source() == "none":
            raise EngineError(
                "auth_required",
                f"No credential for Claude is available. {self._next_step()}",
                next_step=self._next_step(),
            )

    def _source(self) -> CredentialSource:
        if self._provider != "anthropic":
            return "none"
        if self._api_key is not None:
            return "environment"
        return "claudeCodeLogin" if self._logged_in else "none"

    def _next_step(self) -> str:
        if self._provider != "anthropic":
            return (
                f"The provider {self._provider} is not supported yet: "
                f"unset {_VARIABLES[self._provider]} and restart the daemon."
            )
        return (
            "Set ANTHROPIC_API_KEY where the daemon is started and run `dragoman daemon restart`, "
            "or log in once with `claude`."
        )


def _provider(environment: Mapping[str, str]) -> Provider:
    for provider, variable in _VARIABLES.items():
        if environment.get(variable, "").lower() in ("1", "true", "yes", "on"):
            return provider
    return "anthropic"
