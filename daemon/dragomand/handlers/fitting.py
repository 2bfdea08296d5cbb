"""What is sent for an event that is longer than a message may be: a note in its place, with its number.

Left out, it would be a gap in the numbers; refused, whoever attaches again would meet it again.
"""

import msgspec
from dragoman_protocol.stream import Raw, StreamEventParams

from dragomand.engine.channel import Published
from dragomand.server.route import LONGEST_EVENT

_encode = msgspec.json.Encoder().encode


def fitting(event: Published, longest: int = LONGEST_EVENT) -> msgspec.Raw:
    """Return the encoded event, or a `raw` note in its place if it has more than *longest* bytes."""
    raw = event.raw
    size = len(bytes(raw))
    if size <= longest:
        return raw
    params = event.params
    note = {"type": "omitted", "kind": params.event.__struct_config__.tag, "bytes": size}
    return msgspec.Raw(
        _encode(
            StreamEventParams(
                session_id=params.session_id,
                event=Raw(frame=msgspec.Raw(_encode(note))),
                seq=params.seq,
                cursor=params.cursor,
            )
        )
    )
