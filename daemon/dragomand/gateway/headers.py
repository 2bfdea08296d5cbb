"""Which headers pass, in either direction.

Both are allow-lists: whatever is not known to be needed stays behind, credentials first of all.
"""

import re
from collections.abc import Iterable

Pairs = Iterable[tuple[str, str]]

_THERE = re.compile(
    r"accept|content-type|user-agent|x-app|x-client-request-id|x-claude-code-[a-z-]+|x-stainless-[a-z-]+"
    r"|anthropic-(?:version|beta|dangerous-direct-browser-access)"
)
_BACK = re.compile(
    r"content-type|content-length|content-encoding|content-language|cache-control|date|retry-after"
    r"|retry-after-ms|x-should-retry|request-id|cf-ray|anthropic-[a-z0-9-]+"
)


def request_headers(given: Pairs, api_key: str) -> dict[str, str]:
    """Return what is sent to the provider: what may pass of *given*, and the real key.

    The answer is asked for uncompressed, so that it can be passed on as it comes and counted as it goes by.
    """
    passed = {name.lower(): value for name, value in given if _THERE.fullmatch(name.lower())}
    return {**passed, "accept-encoding": "identity", "x-api-key": api_key}


def response_headers(given: Pairs) -> dict[str, str]:
    """Return what of the provider's headers is passed back."""
    return {name.lower(): value for name, value in given if _BACK.fullmatch(name.lower())}
