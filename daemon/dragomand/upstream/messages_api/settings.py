"""Where the Messages API is, and how long it may take."""

from dataclasses import dataclass

from dragomand.upstream.endpoint import DEFAULT_URL


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectSettings:
    """How the daemon talks to the API itself. Spans are seconds."""

    base_url: str = DEFAULT_URL
    proxy: str | None = None
    """An HTTP proxy's URL."""
    model: str = "sonnet"
    """For a query that names none."""
    max_tokens: int = 16_000
    """Longest answer of a query that does not say."""
    max_connections: int = 256
    """Calls beyond it wait for a connection."""
    connect_timeout_s: float = 10.0
    first_byte_timeout_s: float = 120.0
    """From the request to the first byte of the response's body."""
    idle_timeout_s: float = 60.0
    """Without a byte."""
    pings_timeout_s: float = 300.0
    """With pings only."""

    def url(self, path: str) -> str:
        """Return the whole URL of an endpoint."""
        return self.base_url.rstrip("/") + path
