"""What differs where a cloud answers instead of Anthropic itself: one small object a provider.

Without one, a call goes to Anthropic with the API key, and nothing of this is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from dragoman_protocol.auth import CloudAuth

from dragomand.upstream.interface import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudSettings:
    """Which place of a cloud is asked. What is empty comes from `environment`, else from the chain."""

    region: str = ""
    project: str = ""
    """Vertex AI's alone."""
    profile: str = ""
    """Of AWS's configuration files; Bedrock's alone."""
    url: str = ""
    """In place of the region's own; for a proxy or a private endpoint."""
    model_prefix: str = ""
    """Bedrock's inference profiles: `us`, `eu`, `global` …; empty: by the region."""
    credential_timeout_s: float = 10.0
    """How long finding or renewing a credential may take."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class Call(NamedTuple):
    """One request, ready to be sent as it stands."""

    url: str
    """Already encoded: what was signed must arrive unchanged."""
    headers: dict[str, str]
    body: bytes
    proxy: str | None = None


class StreamReader(Protocol):
    """Turns the chunks of an answer into server-sent events."""

    @property
    def holds(self) -> bool:
        """Whether a chunk must go through it: False if the next one may be whole events as it stands."""

    def feed(self, chunk: bytes) -> bytes:
        """Return the whole events that *chunk* completes. Raises `UnreadableError`, `TooLongError`."""


class Endpoint(Protocol):
    """One cloud's Messages API."""

    content_type: str
    """Of a stream."""

    async def call(self, body: bytes, betas: tuple[str, ...] = ()) -> Call:
        """Return the call that streams the answer to *body*, the body of `POST /v1/messages`.

        Raises `UpstreamError` (`auth`: no credential, and what to do).
        """

    async def count_call(self, body: bytes) -> Call:
        """Return the call that counts the tokens of *body*, that of `POST /v1/messages/count_tokens`."""

    def counted(self, said: bytes) -> int:
        """Return the tokens that the answer to it tells. Raises `msgspec.MsgspecError`."""

    def reader(self) -> StreamReader:
        """Return a new reader for one answer."""

    def failure(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
        """Return the failure of a response that is no success; *now* is Unix seconds."""

    def model(self, name: str) -> str:
        """Return the provider's id of a model that is named by alias or in full."""

    def status(self) -> CloudAuth:
        """Return what is known of the credential, from memory."""
