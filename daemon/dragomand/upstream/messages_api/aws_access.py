"""The region, the endpoint and the keys with which Amazon Bedrock is asked, from AWS's own chain.

The chain is botocore's: the environment, the profile (SSO and assumed roles included), a container's or an
instance's role. It reads the process's own environment and AWS's files, and may wait for the network.
"""

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

from dragoman_protocol.auth import CloudAuth

from dragomand.telemetry.redaction import Redactor
from dragomand.upstream.interface import Failure, UpstreamError
from dragomand.upstream.messages_api.endpoint import CloudSettings
from dragomand.upstream.messages_api.shared_refresh import SharedRefresh

INSTALL = "Install Amazon's library where the daemon runs: pip install 'dragoman[bedrock]'."
SIGN_IN = (
    "Set AWS_BEARER_TOKEN_BEDROCK or AWS's own variables where the daemon is started and run "
    "`dragoman daemon restart`, or sign in with AWS's tools (`aws configure`, `aws sso login`) and ask again."
)
NO_REGION = "Set direct.region in the settings, or AWS_REGION where the daemon is started."
_LEFT_S = 300
"""Keys that are valid for longer are used while others are fetched."""
_SIGNS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


@dataclass(frozen=True, slots=True)
class AwsAccess:
    """What a call needs."""

    region: str
    url: str
    keys: Any = None
    """botocore's `ReadOnlyCredentials`; None with a bearer token."""
    source: str | None = None
    holder: Any = None
    """botocore's `Credentials`, which knows when they have to be renewed."""

    def __repr__(self) -> str:
        """Return it without its secrets."""
        return f"AwsAccess({self.region!r}, {self.url!r}, source={self.source!r})"


class AwsChain:
    """Asks the chain when it has to, once for all who wait, and remembers what it found."""

    def __init__(self, settings: CloudSettings, *, signs: bool) -> None:
        """Find keys if *signs*, else only the region and the endpoint."""
        env = settings.environment
        self._settings = settings
        self._signs = signs
        self._profile = settings.profile or env.get("AWS_PROFILE") or None
        self._region = settings.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or None
        self._url = (settings.url or env.get("ANTHROPIC_BEDROCK_BASE_URL", "")).rstrip("/")
        self._access: AwsAccess | None = None
        self._failed: str | None = None
        self._sign = _sign_of(settings)
        self._refresh = SharedRefresh(
            self._find, timeout_s=settings.credential_timeout_s, name="dragoman-aws-credentials"
        )
        if not signs and self._region is not None:
            self._access = AwsAccess(self._region, self._endpoint(self._region))

    @property
    def region(self) -> str | None:
        """The region, if it is known already."""
        return self._access.region if self._access is not None else self._region

    def forget(self) -> None:
        """Ask the chain anew at the next call: somebody may have signed in meanwhile."""
        if self._signs:
            self._access = None

    async def access(self) -> AwsAccess:
        """Return what a call needs. Raises `UpstreamError`: `auth`, or `overload` for the network."""
        access = self._access
        if access is not None and not _is_due(access, _LEFT_S):
            if _is_due(access, None):
                self._refresh.begin()
            return access
        try:
            return await self._refresh.result()
        except TimeoutError:
            raise UpstreamError(self._late(access)) from None

    def status(self) -> CloudAuth:
        """Return what is known, from memory."""
        access = self._access
        expires = getattr(access.holder, "_expiry_time", None) if access is not None else None
        known = CloudAuth(
            provider="bedrock",
            state="found" if access else "failed" if self._failed else "notAsked",
            source=access.source if access else self._sign,
            region=self.region,
            expires_at=expires.timestamp() if expires is not None else None,
            next_step=None if access else self._failed,
        )
        if access is None and not is_installed():
            known.state, known.next_step = "notInstalled", INSTALL
        elif access is None and self._failed is None and self._sign is None:
            known.next_step = f"The first query asks AWS's own chain. {SIGN_IN}"
        return known

    # -- in the thread

    def _find(self) -> AwsAccess:
        try:
            found = self._access = self._ask()
        except UpstreamError as failed:
            self._failed = failed.failure.message
            if self._access is not None and _is_due(self._access, _LEFT_S):
                self._access = None  # the next call asks the whole chain, not only whoever gave the old keys
            raise
        self._failed = None
        return found

    def _ask(self) -> AwsAccess:
        try:
            from botocore.auth import SigV4Auth  # noqa: F401  # here, so that signing has it
            from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
            from botocore.session import Session
        except ImportError:
            if not self._signs:
                raise _no("No AWS region is known.", NO_REGION) from None
            raise _no("Amazon's library botocore is not installed.", INSTALL) from None
        try:
            session = Session(profile=self._profile)
            region = self._region or session.get_config_variable("region")
            if not region:
                raise _no("No AWS region is known.", NO_REGION)
            if not self._signs:
                return AwsAccess(region, self._endpoint(region))
            holder = self._renewed() or session.get_credentials()
            keys = holder.get_frozen_credentials() if holder is not None else None
        except (HTTPClientError, ConnectionError) as broken:
            text = f"AWS's credential service cannot be reached: {_words(broken)}."
            raise UpstreamError(Failure("overload", text)) from None
        except (BotoCoreError, ClientError, RuntimeError, ValueError, OSError) as wrong:
            raise _no(f"AWS's chain gave no credential: {_words(wrong)}.", SIGN_IN) from None
        if holder is None or keys is None or not keys.access_key:
            raise _no("AWS's chain has no credential.", SIGN_IN)
        return AwsAccess(region, self._endpoint(region), keys, str(holder.method), holder)

    def _renewed(self) -> Any:
        """Return the holder that only has to be asked again; None: the chain has to be."""
        access = self._access
        return access.holder if access is not None and hasattr(access.holder, "refresh_needed") else None

    def _endpoint(self, region: str) -> str:
        return self._url or f"https://bedrock-runtime.{region}.amazonaws.com"

    def _late(self, before: AwsAccess | None) -> Failure:
        span = f"AWS's chain gave no credential within {self._settings.credential_timeout_s:g} s."
        if before is not None:
            return Failure("overload", span)
        self._failed = f"{span} {SIGN_IN}"
        return Failure("auth", self._failed)


def is_installed() -> bool:
    """Tell whether Amazon's library can be loaded."""
    return importlib.util.find_spec("botocore") is not None


def _is_due(access: AwsAccess, left_s: int | None) -> bool:
    """Tell whether the keys have to be renewed; no network, no file."""
    due = getattr(access.holder, "refresh_needed", None)
    return bool(due(left_s)) if due is not None else False


def _no(what: str, next_step: str) -> UpstreamError:
    return UpstreamError(Failure("auth", f"{what} {next_step}"))


def _words(wrong: Exception) -> str:
    return Redactor()(str(wrong))[:500].rstrip(".")


def _sign_of(settings: CloudSettings) -> str | None:
    """Return what looks as if there were a credential, without opening anything."""
    if settings.profile:
        return f"profile {settings.profile}"
    env = settings.environment
    for name in _SIGNS:
        if env.get(name):
            return name
    folder = os.path.join(env.get("HOME", "/"), ".aws")
    files = (
        env.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.join(folder, "credentials"),
        env.get("AWS_CONFIG_FILE") or os.path.join(folder, "config"),
    )
    return next((os.path.basename(path) for path in files if os.path.exists(path)), None)
