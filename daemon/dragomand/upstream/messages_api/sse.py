"""Server-sent events out of raw chunks, without an object per line."""

MAX_EVENT_BYTES = 16 * 1024 * 1024


class TooLongError(Exception):
    """An event is longer than may be."""


class EventReader:
    """Takes chunks as they come and gives what of them is whole events."""

    __slots__ = ("_limit", "_rest")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        """Refuse events of more than *max_event_bytes*."""
        self._rest = bytearray()
        self._limit = max_event_bytes

    @property
    def holds(self) -> bool:
        """Whether it holds the beginning of an event."""
        return bool(self._rest)

    def feed(self, chunk: bytes) -> bytes:
        """Return the events that *chunk* completes, as they are written, with line feeds only.

        `next_event` takes them apart. Raises `TooLongError`.
        """
        rest = self._rest
        if rest:
            looked = max(0, len(rest) - 3)
            rest += chunk
            if not _ends(rest, looked):
                self._check(len(rest))
                return b""
            chunk = bytes(rest)
            self._rest = bytearray()
        if b"\r" in chunk:
            chunk = self._without_returns(chunk)
        if chunk.endswith(b"\n\n"):
            return chunk
        end = chunk.rfind(b"\n\n") + 2 if b"\n\n" in chunk else 0
        self._check(len(chunk) - end)
        self._rest += chunk[end:]
        return chunk[:end]

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise TooLongError(f"an event of the stream has more than {self._limit} bytes")

    def _without_returns(self, chunk: bytes) -> bytes:
        """Turn every line end into a line feed; a return at the end may be half of one, and stays."""
        half = chunk.endswith(b"\r")
        chunk = chunk[:-1] if half else chunk
        whole = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return whole + b"\r" if half else whole


def next_event(events: bytes, start: int) -> tuple[bytes | None, int]:
    """Return the data of the event that begins at *start* (None: it has none), and where the next one begins.

    Names of events are left out (the API repeats them in the data), as are comments and fields that the
    format does not know.
    """
    end = events.index(b"\n\n", start)
    return _data(events[start:end]), end + 2


def _ends(buffer: bytearray, start: int) -> bool:
    """Tell whether an event may end in *buffer* after *start*."""
    return buffer.find(b"\n\n", start) >= 0 or buffer.find(b"\r", start) >= 0


def _data(block: bytes) -> bytes | None:
    """Return the data of one event's lines; None without any."""
    name, found, data = block.partition(b"\ndata: ")
    if found and b"\n" not in data and b"\n" not in name and name.startswith(b"event:"):
        return data  # as the API writes it
    lines = [line for line in block.split(b"\n") if line.startswith(b"data:")]
    if not lines:
        return None
    return b"\n".join(line[6:] if line.startswith(b"data: ") else line[5:] for line in lines)
