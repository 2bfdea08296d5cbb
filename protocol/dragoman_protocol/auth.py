"""Who pays: the credential that the daemon holds."""

from typing import Literal

from .values import Value

CredentialSource = Literal["environment", "claudeCodeLogin", "cloud", "none"]
"""Where the credential in use comes from, in order of precedence (requirements 01.3 to 01.6); `cloud`: from
where `provider`'s own tools find it, see `messagesApi`."""

Provider = Literal["anthropic", "bedrock", "vertex"]
"""Which cloud answers (01.21)."""


class CloudAuth(Value):
    """The cloud whose Messages API answers direct queries, and what is known of its credential."""

    provider: Provider
    state: Literal["found", "notAsked", "failed", "notInstalled"]
    """`found`: the last call had one · `notAsked`: the first query will look for it · `failed`: there was
    none · `notInstalled`: the cloud's library is missing."""
    source: str | None = None
    """Where it was found, in the cloud's own words (`sso`, `iam-role` …), or where there are signs of it."""
    region: str | None = None
    project: str | None = None
    expires_at: float | None = None
    """Unix seconds; it is renewed before."""
    next_step: str | None = None
    """What to do when there is none."""


class AuthStatusResult(Value):
    """What `auth/status` answers, from memory. No secret, nor a part of one, is ever in it."""

    authenticated: bool
    source: CredentialSource
    provider: Provider
    token_present: bool
    expires_at: float | None = None
    """Unix seconds; absent when the credential does not expire or its expiry is not known."""
    time_until_expiry_hours: float | None = None
    """One decimal; absent without an expiry (01.11)."""
    next_step: str | None = None
    """What to do when not authenticated."""
    messages_api: CloudAuth | None = None
    """Who answers direct queries; absent: Anthropic itself, with the API key."""
