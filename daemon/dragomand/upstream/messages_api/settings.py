"""Where the Messages API is, and how long it may take."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_URL = "https://api.anthropic.com"


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


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy that *environment* names for *url* (`HTTPS_PROXY`, `NO_PROXY` …); None without one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    but = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    for name in (each.strip().lstrip(".") for each in but.split(",")):
        if name == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return None
    name = f"{parts.scheme}_proxy"
    return environment.get(name) or environment.get(name.upper()) or None
