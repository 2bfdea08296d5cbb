"""Between asyncio and the receiver; what happens over a real socket is in `test_socket` and `test_stdio`."""

import asyncio
from typing import Any

from dragomand.transport.interface import SOFT_BYTES
from dragomand.transport.stream import StreamProtocol


class Stream(asyncio.Transport):
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 7

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.calls.append((high, low))

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


class Using(StreamProtocol):
    def begin(self, stream: Stream, receiver: Any) -> None:
        self._use(stream)
        self._receiver = receiver


def test_without_a_connection_nothing_happens() -> None:
    protocol = StreamProtocol()
    protocol.data_received(b"x")
    assert protocol.eof_received()
    protocol.pause_writing()
    protocol.resume_writing()
    protocol.write(b"x")
    protocol.pause_reading()
    protocol.resume_reading()
    protocol.close()
    protocol.abort()
    protocol.connection_lost(None)
    assert protocol.unsent() == 0
    assert protocol.peer_pid is None


async def test_each_side_hears_of_the_other(make_door: Any) -> None:
    protocol, stream = Using(), Stream()
    receiver = make_door().accept(protocol)
    protocol.begin(stream, receiver)
    protocol.data_received(b"question")
    protocol.pause_writing()
    protocol.resume_writing()
    protocol.write(b"answer")
    protocol.pause_reading()
    protocol.pause_reading()
    protocol.resume_reading()
    protocol.resume_reading()
    assert protocol.unsent() == 7
    assert protocol.eof_received()
    assert protocol.eof_received()
    protocol.pause_reading()  # there is nothing left to read
    protocol.resume_reading()
    protocol.close()
    protocol.abort()
    assert receiver.data == b"question"
    assert receiver.events == ["stalled", "flowing", "ended"]
    assert stream.calls == [(SOFT_BYTES, SOFT_BYTES // 4), b"answer", "pause", "resume", "close", "abort"]
    protocol.connection_lost(None)
    protocol.connection_lost(None)
    protocol.write(b"nobody")
    assert receiver.events[3:] == ["lost"]
    assert stream.calls[-1] == "abort"
