"""Who reads the answer to a call: its head, then its stream, or what it says instead of one."""

import time
from collections.abc import Mapping
from typing import Literal

from msgspec.structs import replace

from dragomand.upstream import failures, limit_headers
from dragomand.upstream.interface import ApiCall, Failure
from dragomand.upstream.limits_heard import LimitsHeard, OnLimits
from dragomand.upstream.messages_api.answer import Answer
from dragomand.upstream.messages_api.watchdog import Watchdog

ERROR_BYTES = 65_536
"""So much is read of what is no stream."""

State = Literal["reading", "whole", "broken"]


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
        self,
        answer: Answer,
        watchdog: Watchdog,
        call: ApiCall | None,
        tell: OnLimits,
        *,
        model: str,
        message_id: str,
    ) -> None:
        """Hand the stream to *answer*; *call* holds its permit. The call is sent now.

        What the answer says of the provider's limits is told to *call*, or without one to *tell*.
        """
        super().__init__()
        self._answer = answer
        self._watchdog = watchdog
        self._call = call
        self._tell = tell if call is None else call.note_limits
        self._model = model
        self._message_id = message_id
        self._sent_order = time.monotonic_ns()
        self._heard: LimitsHeard | None = None
        self._is_stream = False

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Note the status and what the headers say of limits."""
        super().head(status, headers)
        self._is_stream = status == 200 and headers.get("content-type", "").startswith("text/event-stream")
        if status == 200 and not self._is_stream:
            self.state = "broken"
        if self._call is not None:
            self._call.status = status
        heard = limit_headers.read(
            headers.items(), sent_order=self._sent_order, now=time.time(), status=status, model=self._model
        )
        self._heard = replace(heard, message_id=self._message_id)
        if status == 200:
            self._tell(self._heard)

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
        """Why there is no whole answer; None if there is one. Ask once: a refusal is told then."""
        if self.status != 200 and self._heard is not None:
            refused = failures.of_answer(self.status, self._heard, bytes(self.said))
            self._tell(replace(self._heard, failure=refused))
            return refused
        failed = self._answer.failure
        if failed is not None or self._answer.complete:
            return failed
        if not self._is_stream:
            kind = self.headers.get("content-type", "nothing that it names").partition(";")[0]
            return Failure("protocol", f"The Messages API sent {kind}, no stream.")
        return Failure("overload", "The Messages API broke the answer off.")
