"""Who pays: the credential that the daemon holds."""

from typing import Literal

from .values import Value

CredentialSource = Literal["environment", "claudeCodeLogin", "none"]
"""Where the credential in use comes from, in order of precedence (requirements 01.3 to 01.6)."""

Provider = Literal["anthropic", "bedrock", "vertex"]
"""Which cloud answers (01.21)."""


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
