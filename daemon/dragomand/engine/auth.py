"""Which credential there is, answered from memory (requirements 01.2 to 01.6, 01.11, 01.21, 01.32).

First form: the daemon's own `ANTHROPIC_API_KEY`, then Claude Code's own login, whose presence alone is looked
at and which is never read. Direct queries may go to a cloud instead, which finds its credential itself and
tells here what it knows. No method returns a secret.
"""

import os
from collections.abc import Callable, Mapping

from dragoman_protocol.auth import AuthStatusResult, CloudAuth, CredentialSource, Provider

from .errors import EngineError

LOGIN_FILE = ".credentials.json"
"""Claude Code's own file in its configuration folder; where it is, somebody has logged in."""
LOGIN = "claudeLogin"
"""The name of that credential."""

_VARIABLES: dict[Provider, str] = {"bedrock": "CLAUDE_CODE_USE_BEDROCK", "vertex": "CLAUDE_CODE_USE_VERTEX"}


class Auth:
    """Holds the credential for the daemon's life."""

    def __init__(
        self,
        *,
        api_key: str | None,
        environment: Mapping[str, str],
        claude_config_dir: str,
        cloud: Callable[[], CloudAuth] | None = None,
    ) -> None:
        """Use *api_key* if it is not empty; *environment* may name a provider (`CLAUDE_CODE_USE_…`).

        *cloud* tells of the cloud that answers direct queries; None: Anthropic does, with the key.
        """
        self._api_key = api_key or None
        self._provider = provider_of(environment)
        self._cloud = cloud
        self._login_file = os.path.join(claude_config_dir, LOGIN_FILE)
        self._login = self._seen()
        self._logged_in = self._login is not None
        self.is_refused: Callable[[str], bool] = lambda _name: False
        """Tells whether the provider refused a credential, by its name."""
        self.on_other: Callable[[str], None] = lambda _name: None
        """Told that behind a credential's name there is another one than before; must return at once."""

    def api_key(self) -> str | None:
        """Return the key for the upstream, which must not keep it; None without one."""
        return self._api_key

    @property
    def credential(self) -> str:
        """Which credential pays for turns of Claude Code, by a name that reveals nothing of it."""
        return "apiKey" if self._api_key is not None else LOGIN

    @property
    def direct_credential(self) -> str:
        """The same of direct queries: a cloud's name where one answers them."""
        return self.credential if self._cloud is None else self._cloud().provider

    @property
    def direct_provider(self) -> Provider:
        """Who answers direct queries."""
        return "anthropic" if self._cloud is None else self._cloud().provider

    @property
    def no_direct_answer(self) -> str | None:
        """Why the cloud cannot be asked, for people; None if it can, or if it is only the key that misses."""
        cloud = None if self._cloud is None else self._cloud()
        return None if cloud is None or _usable(cloud) else cloud.next_step

    @property
    def can_ask_directly(self) -> bool:
        """Whether the Messages API can be asked: with the key, or through a cloud."""
        return self._api_key is not None if self._cloud is None else _usable(self._cloud())

    def status(self) -> AuthStatusResult:
        """Return what is known, without starting a process or reading a file."""
        source = self._source()
        cloud = None if self._cloud is None else self._cloud()
        provider = self._provider
        if cloud is not None and source == "none":
            # A sign of a credential counts like a login of Claude Code's, which is not tried either.
            source = "cloud" if _usable(cloud) and cloud.source is not None else "none"
            provider = cloud.provider
        return AuthStatusResult(
            authenticated=source != "none",
            source=source,
            provider=provider,
            token_present=self._api_key is not None,
            next_step=None if source != "none" else self._next_step(),
            messages_api=cloud,
        )

    def require(self) -> None:
        """Raise `auth_required`, with what to do next, unless there is some credential."""
        if self._source() == "none" and not (self._cloud is not None and self.can_ask_directly):
            self.require_claude_code()

    def require_claude_code(self) -> None:
        """Raise `claude_code_refusal`, if there is one."""
        refusal = self.claude_code_refusal()
        if refusal is not None:
            raise refusal

    def claude_code_refusal(self) -> EngineError | None:
        """Return why Claude Code cannot be asked; None if it can.

        Somebody may have logged in since the daemon started, so without a credential, or with a login that
        was refused, the disk is looked at again.
        """
        if self._source() == "none" or (self._api_key is None and self.is_refused(LOGIN)):
            self._look()
        if self._source() != "none":
            return None
        if self._cloud is not None and self.can_ask_directly:
            return EngineError(
                "upstream_unavailable",
                f"Only direct queries are answered by way of {self._cloud().provider}: Claude Code has no "
                f"credential here that the daemon supports.",
                next_step="Ask with `tools: []` and without a `cwd`, or with `upstream: messagesApi`. "
                + self._step_for_claude_code(),
            )
        next_step = self._next_step()
        text = f"No credential for Claude is available. {next_step}"
        return EngineError("auth_required", text, next_step=next_step)

    def note_refused(self, name: str) -> None:
        """The provider has refused a credential: a login is another one if its file changes from now on."""
        if name == LOGIN:
            self._login = self._seen() or self._login

    def _look(self) -> None:
        """Look whether somebody has logged in, or in anew."""
        seen = self._seen()
        if seen is not None and seen != self._login:
            self._login, self._logged_in = seen, True
            self.on_other(LOGIN)

    def _seen(self) -> tuple[int, int] | None:
        """Return what tells one login file from another without reading it; None: there is none."""
        try:
            found = os.stat(self._login_file)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _source(self) -> CredentialSource:
        if self._provider != "anthropic":
            return "none"
        if self._api_key is not None:
            return "environment"
        return "claudeCodeLogin" if self._logged_in else "none"

    def _next_step(self) -> str:
        if self._cloud is not None and (step := self._cloud().next_step):
            return step
        return self._step_for_claude_code()

    def _step_for_claude_code(self) -> str:
        if self._provider != "anthropic":
            return (
                f"Claude Code with {self._provider} is not supported yet: "
                f"unset {_VARIABLES[self._provider]} and restart the daemon."
            )
        return (
            "Set ANTHROPIC_API_KEY where the daemon is started and run `dragoman daemon restart`, "
            "or log in once with `claude`."
        )


def _usable(cloud: CloudAuth) -> bool:
    """Tell whether a query may be tried: after a failure too, somebody may have signed in meanwhile."""
    return cloud.state != "notInstalled"


def provider_of(environment: Mapping[str, str]) -> Provider:
    """Return the provider that Claude Code's own variables name."""
    for provider, variable in _VARIABLES.items():
        if environment.get(variable, "").lower() in ("1", "true", "yes", "on"):
            return provider
    return "anthropic"
