"""Which headers pass, in either direction.

Both are allow-lists: whatever is not known to be needed stays behind, credentials first of all.
"""

import math
import re
from collections.abc import Iterable

from dragomand.upstream import limit_headers

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
    passed: dict[str, str] = {}
    for name, value in given:
        lower = name.lower()
        if _THERE.fullmatch(lower):
            passed[lower] = f"{passed[lower]}, {value}" if lower in passed else value
    return {**passed, "accept-encoding": "identity", "x-api-key": api_key}


def response_headers(given: Pairs, now: float) -> dict[str, str]:
    """Return what of the provider's headers is passed back. *now* is Unix seconds.

    A pause that it asks for in another form is told in whole seconds too, which everybody understands: Claude
    Code takes no notice of a date.
    """
    headers = {name.lower(): value for name, value in given if _BACK.fullmatch(name.lower())}
    told = {name: headers[name] for name in ("retry-after", "retry-after-ms") if name in headers}
    if told and not told.get("retry-after", "").isdecimal():
        pause_s = limit_headers.read(told.items(), sent_order=0, now=now).retry_after_s
        if pause_s is not None:
            headers["retry-after"] = str(math.ceil(pause_s))
    return headers
