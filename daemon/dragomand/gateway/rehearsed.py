"""What the gateway says to a process that warms up: a short answer of the Messages API, free of charge."""

from typing import Any

import msgspec


def rehearsed(text: str) -> bytes:
    """Return a streamed answer that says *text* and has taken no tokens."""
    usage = {"input_tokens": 0, "output_tokens": 0}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    message: dict[str, Any] = {
        "id": "msg_rehearsal",
        "type": "message",
        "role": "assistant",
        "model": "rehearsal",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": usage},
        {"type": "message_stop"},
    ]
    return b"".join(
        b"event: " + str(event["type"]).encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"
        for event in events
    )
