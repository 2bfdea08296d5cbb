"""Where the Messages API is, and which way out leads there."""

from collections.abc import Mapping
from urllib.parse import urlsplit

DEFAULT_URL = "https://api.anthropic.com"


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy that *environment* names for *url* (`HTTPS_PROXY`, `NO_PROXY` …); None without one."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None  # it is no URL: whoever asks there will hear so
    host = parts.hostname or ""
    excepted = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    for name in (each.strip().lstrip(".") for each in excepted.split(",")):
        if name == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return None
    variable = f"{parts.scheme}_proxy"
    return environment.get(variable) or environment.get(variable.upper()) or None
