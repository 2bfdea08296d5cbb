"""What an answer that goes by says of the provider's limits, and why, if it is a refusal."""

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from dragomand.upstream import failures, limit_headers
from dragomand.upstream.interface import Failure
from dragomand.upstream.limits_heard import OnLimits

MOST_SAID = 65_536
"""So many bytes of a refusal are read."""


_LONGEST_MODEL = 200


class _Asked(msgspec.Struct):
    model: str | None = None


_asked = msgspec.json.Decoder(_Asked).decode


class Overheard:
    """One answer. Of a refusal the headers alone do not say what it is, so it is told with its body."""

    __slots__ = ("_heard", "_said", "_tell", "failure")

    def __init__(
        self,
        tell: OnLimits,
        headers: Iterable[tuple[str, str]],
        *,
        status: int,
        sent_order: int,
        now: float,
        model: str | None,
    ) -> None:
        """Tell *tell*, at once if it is a success; *sent_order* and the rest as in `LimitsHeard`."""
        self._tell = tell
        self._heard = limit_headers.read(headers, sent_order=sent_order, now=now, status=status, model=model)
        self._said: bytearray | None = None
        self.failure: Failure | None = None
        """Why it is no success; known at its end."""
        if status < 400:
            tell(self._heard)
        else:
            self._said = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what went by."""
        if self._said is not None and len(self._said) < MOST_SAID:
            self._said += data

    def end(self) -> None:
        """The answer is over."""
        status = self._heard.status
        if self._said is None or status is None:
            return
        self.failure = failures.of_answer(status, self._heard, bytes(self._said[:MOST_SAID]))
        self._tell(replace(self._heard, failure=self.failure))


def model_of(body: bytes) -> str | None:
    """Return whom a request is for; None if it does not say."""
    try:
        model = _asked(body).model
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if model is None else model[:_LONGEST_MODEL]


def counts(path: str) -> bool:
    """Tell whether the limits that an answer under *path* tells of are those of messages."""
    return path == "/v1/messages"
