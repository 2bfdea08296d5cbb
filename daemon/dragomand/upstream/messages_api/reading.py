"""Who reads the answer to a call: its head, then its stream, or what it says instead of one."""

import time
from collections.abc import Callable, Mapping
from typing import Literal

from dragoman_protocol.limits import RateLimitSnapshot

from dragomand.upstream import failures
from dragomand.upstream.interface import ApiCall, Failure
from dragomand.upstream.messages_api.answer import Answer
from dragomand.upstream.messages_api.watchdog import Watchdog

ERROR_BYTES = 65_536
"""So much is read of what is no stream."""

State = Literal["reading", "whole", "broken"]
ReadLimits = Callable[[Mapping[str, str], int], RateLimitSnapshot | None]
"""Returns what headers, with their answer's status, say of the provider's limits."""


class PlainReading:
    """Reads a status and a body that is short (`connections.Reader`)."""

    def __init__(self) -> None:
        """Begin before the answer."""
        self.state: State = "reading"
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.said = bytearray()
        """The body, or its first 64 KiB."""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Keep status and headers."""
        self.status, self.headers = status, headers

    def body(self, data: bytes) -> None:
        """Keep what comes, as far as it is wanted."""
        self.said += data[: ERROR_BYTES - len(self.said)]
        if len(self.said) == ERROR_BYTES:
            self.state = "broken"

    @property
    def failure(self) -> Failure | None:
        """Why the call failed, if its status says so."""
        if self.status == 200:
            return None
        return failures.of_response(self.status, self.headers, bytes(self.said), time.time())


class StreamReading(PlainReading):
    """Reads a stream of events, and notes in the call what it says."""

    def __init__(
        self, answer: Answer, watchdog: Watchdog, call: ApiCall | None, read_limits: ReadLimits | None
    ) -> None:
        """Hand the stream to *answer*; *call* holds its permit, *read_limits* understands its headers."""
        super().__init__()
        self._answer = answer
        self._watchdog = watchdog
        self._call = call
        self._read_limits = read_limits
        self._is_stream = False

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Note the status and what the headers say of limits."""
        super().head(status, headers)
        self._is_stream = status == 200 and headers.get("content-type", "").startswith("text/event-stream")
        if status == 200 and not self._is_stream:
            self.state = "broken"
        call = self._call
        if call is None:
            return
        call.status = status
        if self._read_limits is not None:
            seen = self._read_limits(headers, status)
            if seen is not None:
                call.note_ratelimit(seen)

    def body(self, data: bytes) -> None:
        """Read on."""
        if self.state != "reading":
            return
        if not self._is_stream:
            super().body(data)
            return
        answer = self._answer
        self._watchdog.heard(words=answer.feed(data))
        if answer.failure is not None:
            self.state = "broken"
        elif answer.complete:
            self.state = "whole"

    @property
    def failure(self) -> Failure | None:
        """Why there is no whole answer; None if there is one."""
        failed = super().failure or self._answer.failure
        if failed is not None or self._answer.complete:
            return failed
        if not self._is_stream:
            kind = self.headers.get("content-type", "nothing that it names").partition(";")[0]
            return Failure("protocol", f"The Messages API sent {kind}, no stream.")
        return Failure("overload", "The Messages API broke the answer off.")
