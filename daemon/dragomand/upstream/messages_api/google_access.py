"""The project, the endpoint and the access token with which Vertex AI is asked, from Google's own chain.

The chain is that of the Application Default Credentials (google-auth): a file that
GOOGLE_APPLICATION_CREDENTIALS names, gcloud's own, an instance's service account. It reads the process's own
environment, may run `gcloud`, and waits for the network.
"""

import importlib.util
import os
from dataclasses import dataclass, field
from typing import Any

from dragoman_protocol.auth import CloudAuth

from dragomand.telemetry.redaction import Redactor
from dragomand.upstream.interface import Failure, UpstreamError
from dragomand.upstream.messages_api.endpoint import CloudSettings
from dragomand.upstream.messages_api.shared_refresh import SharedRefresh

INSTALL = "Install Google's library where the daemon runs: pip install 'dragoman[vertex]'."
SIGN_IN = (
    "Run `gcloud auth application-default login` and ask again, or set GOOGLE_APPLICATION_CREDENTIALS where "
    "the daemon is started and run `dragoman daemon restart`."
)
NO_REGION = "Set direct.region in the settings, or CLOUD_ML_REGION where the daemon is started."
NO_PROJECT = "Set direct.project in the settings, or ANTHROPIC_VERTEX_PROJECT_ID where the daemon is started."
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_GEOGRAPHIES = {
    "global": "https://aiplatform.googleapis.com/v1",
    "us": "https://aiplatform.us.rep.googleapis.com/v1",
    "eu": "https://aiplatform.eu.rep.googleapis.com/v1",
}


@dataclass(frozen=True, slots=True)
class GoogleAccess:
    """What a call needs."""

    project: str
    holder: Any = field(repr=False)
    """google-auth's `Credentials`, which hold the token."""
    source: str


class GoogleChain:
    """Asks the chain when it has to, once for all who wait, and remembers what it found."""

    def __init__(self, settings: CloudSettings) -> None:
        """Nothing is asked yet."""
        env = settings.environment
        self._settings = settings
        self.region = settings.region or env.get("CLOUD_ML_REGION") or None
        """Where the model runs; None: nobody said."""
        self._project = (
            settings.project
            or env.get("ANTHROPIC_VERTEX_PROJECT_ID")
            or env.get("GOOGLE_CLOUD_PROJECT")
            or None
        )
        self.url = settings.url or env.get("ANTHROPIC_VERTEX_BASE_URL") or _endpoint(self.region or "global")
        """Without a slash at its end; the version is part of it."""
        self.url = self.url.rstrip("/")
        self._access: GoogleAccess | None = None
        self._failed: str | None = None
        self._sign = _sign_of(settings)
        self._refresh = SharedRefresh(
            self._find, timeout_s=settings.credential_timeout_s, name="dragoman-google-credentials"
        )

    def forget(self) -> None:
        """Ask the chain anew at the next call: somebody may have signed in meanwhile."""
        self._access = None

    async def access(self) -> GoogleAccess:
        """Return what a call needs. Raises `UpstreamError`: `auth`, or `overload` for the network."""
        if self.region is None:
            raise _no("No region of Google Cloud is known.", NO_REGION)
        access = self._access
        if access is not None and (state := access.holder.token_state.name) != "INVALID":
            if state == "STALE":
                self._refresh.begin()
            return access
        try:
            return await self._refresh.result()
        except TimeoutError:
            raise UpstreamError(self._late(access)) from None

    def status(self) -> CloudAuth:
        """Return what is known, from memory."""
        access = self._access
        known = CloudAuth(
            provider="vertex",
            state="found" if access else "failed" if self._failed else "notAsked",
            source=access.source if access else self._sign,
            region=self.region,
            project=access.project if access else self._project,
            expires_at=_expiry(access),
            next_step=None if access else self._failed,
        )
        if access is None and not is_installed():
            known.state, known.next_step = "notInstalled", INSTALL
        elif access is None and self._failed is None and self._sign is None:
            known.next_step = f"The first query asks Google's own chain. {SIGN_IN}"
        return known

    # -- in the thread

    def _find(self) -> GoogleAccess:
        try:
            found = self._access = self._ask(self._access)
        except UpstreamError as failed:
            self._failed = failed.failure.message
            if self._access is not None and self._access.holder.token_state.name == "INVALID":
                self._access = None
            raise
        self._failed = None
        return found

    def _ask(self, before: GoogleAccess | None) -> GoogleAccess:
        try:
            import google.auth
            from google.auth.exceptions import GoogleAuthError, TransportError
            from google.auth.transport.requests import Request
        except ImportError:
            raise _no("Google's library google-auth is not installed.", INSTALL) from None
        try:
            if before is None:
                holder, project = google.auth.default(scopes=_SCOPES)
            else:
                holder, project = before.holder, before.project
            project = self._project or project
            if not project:
                raise _no("No project of Google Cloud is known.", NO_PROJECT)
            if before is not None or holder.token_state.name != "FRESH":
                holder.refresh(Request())  # type: ignore[no-untyped-call]
        except TransportError as broken:
            text = f"Google's credential service cannot be reached: {_words(broken)}."
            raise UpstreamError(Failure("overload", text)) from None
        except (GoogleAuthError, ValueError, OSError) as wrong:
            if getattr(wrong, "retryable", False):
                text = f"Google's credential service did not answer as it should: {_words(wrong)}."
                raise UpstreamError(Failure("overload", text)) from None
            raise _no(f"Google's chain gave no credential: {_words(wrong)}.", SIGN_IN) from None
        return GoogleAccess(project, holder, type(holder).__module__.removeprefix("google."))

    def _late(self, before: GoogleAccess | None) -> Failure:
        span = f"Google's chain gave no credential within {self._settings.credential_timeout_s:g} s."
        if before is not None:
            return Failure("overload", span)
        self._failed = f"{span} {SIGN_IN}"
        return Failure("auth", self._failed)


def is_installed() -> bool:
    """Tell whether Google's library can be loaded."""
    try:
        return importlib.util.find_spec("google.auth") is not None
    except ModuleNotFoundError:
        return False


def _endpoint(region: str) -> str:
    return _GEOGRAPHIES.get(region) or f"https://{region}-aiplatform.googleapis.com/v1"


def _expiry(access: GoogleAccess | None) -> float | None:
    """Return when the token ends; google-auth's moments are UTC without saying so."""
    from datetime import UTC

    expiry = access.holder.expiry if access is not None else None
    return None if expiry is None else float(expiry.replace(tzinfo=UTC).timestamp())


def _no(what: str, next_step: str) -> UpstreamError:
    return UpstreamError(Failure("auth", f"{what} {next_step}"))


def _words(wrong: Exception) -> str:
    said = wrong.args[0] if wrong.args else type(wrong).__name__
    return Redactor()(str(said))[:500].rstrip(".")


def _sign_of(settings: CloudSettings) -> str | None:
    """Return what looks as if there were a credential, without opening anything."""
    env = settings.environment
    if env.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return "GOOGLE_APPLICATION_CREDENTIALS"
    folder = env.get("CLOUDSDK_CONFIG") or os.path.join(env.get("HOME", "/"), ".config", "gcloud")
    name = "application_default_credentials.json"
    return name if os.path.exists(os.path.join(folder, name)) else None
