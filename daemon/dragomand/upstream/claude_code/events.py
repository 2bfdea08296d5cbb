"""Turns Claude Code's frames into the events of `dragoman_protocol.stream`. The only conversion there is.

An answer comes twice: in pieces (`stream_event`), then block by block as it is finished (`assistant`). Both
get the same `itemId`, made of the message's id and the block's index, so that a reader can put the one in the
other's place. Frames of sub-agents (`parent_tool_use_id`) and whatever is not known go through as `raw`.
"""

from collections.abc import Callable

from dragoman_protocol.stream import (
    AssistantText,
    Event,
    RateLimit,
    Raw,
    Retrying,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolResult,
    ToolUse,
)

from dragomand.upstream.claude_code.wire import (
    AnyFrame,
    ApiEvent,
    Assistant,
    Block,
    KeepAlive,
    Lifecycle,
    RateLimitEvent,
    StreamEvent,
    System,
    User,
    as_json,
)
from dragomand.upstream.limits_heard import LimitsHeard

_TOOL_CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")
_QUIET = {"init", "status", "session_state_changed"}
_SILENT_DELTAS = {"input_json_delta", "signature_delta"}
_SILENT_EVENTS = {"message_stop", "message_delta", "content_block_stop", "ping"}


class _Open:
    """A block that is being written."""

    __slots__ = ("finished", "length", "type")

    def __init__(self, type_: str) -> None:
        self.type = type_
        self.length = 0
        self.finished = False


class Translator:
    """Translates the frames of one turn."""

    def __init__(self, sink: Callable[[Event], None]) -> None:
        """Give each event to *sink*."""
        self._sink = sink
        self._message = ""
        self._blocks: dict[int, _Open] = {}
        self.text = ""
        """The newest whole text block."""
        self.model: str | None = None
        """Who answered last."""

    def translate(self, frame: AnyFrame | None, line: bytes, heard: LimitsHeard | None = None) -> None:
        """Publish what *frame*, decoded from *line*, says; what nobody knows goes through as it is.

        *heard* is what it says of limits: each of its windows is told.
        """
        if heard is not None and isinstance(frame, RateLimitEvent):
            self._limits(heard)
        if not self._understands(frame):
            self._sink(Raw(frame=as_json(line)[0]))

    def _understands(self, frame: AnyFrame | None) -> bool:
        if frame is None or frame.parent_tool_use_id is not None:
            return False
        if isinstance(frame, StreamEvent):
            return self._piece(frame.event)
        if isinstance(frame, Assistant):
            return self._whole(frame)
        if isinstance(frame, User):
            return frame.is_replay or self._results(frame)
        if isinstance(frame, System):
            return self._news(frame)
        return isinstance(frame, Lifecycle | KeepAlive | RateLimitEvent)

    def _limits(self, heard: LimitsHeard) -> None:
        for window in heard.windows:
            self._sink(
                RateLimit(
                    window=window.name,
                    status=window.status or "unknown",
                    resets_at=window.resets_at,
                    utilization=window.utilization,
                )
            )

    # an answer, piece by piece

    def _piece(self, event: ApiEvent) -> bool:
        if event.type == "message_start" and event.message is not None:
            self._message, self._blocks = event.message.id, {}
            self.model = event.message.model or self.model
            return True
        if event.type == "content_block_start" and event.content_block is not None:
            block = event.content_block
            self._blocks[event.index] = _Open(block.type)
            self._grow(event.index, text=block.text, thinking=block.thinking)
            return True
        if event.type == "content_block_delta" and event.delta is not None:
            delta = event.delta
            if delta.type in _SILENT_DELTAS:
                return True
            self._grow(event.index, text=delta.text, thinking=delta.thinking)
            return delta.type in ("text_delta", "thinking_delta")
        return event.type in _SILENT_EVENTS

    def _grow(self, index: int, *, text: str, thinking: str) -> None:
        block = self._blocks.setdefault(index, _Open("text" if text else "thinking"))
        item, offset = self._item(index), block.length
        if text:
            self._sink(TextDelta(item_id=item, offset=offset, text=text))
        elif thinking:
            self._sink(ThinkingDelta(item_id=item, offset=offset, text=thinking))
        block.length += len(text or thinking)

    def _item(self, index: int) -> str:
        return f"{self._message}.{index}"

    # whole blocks

    def _whole(self, frame: Assistant) -> bool:
        if frame.is_api_error_message or frame.error is not None:
            return True  # no answer: the result says the same and fails the turn
        message = frame.message
        if message.id != self._message:
            self._message, self._blocks = message.id or frame.uuid or "", {}
        self.model = message.model or self.model
        content = message.content
        blocks = [Block("text", text=content)] if isinstance(content, str) else content
        understood = [self._block(block) for block in blocks]
        return all(understood)

    def _block(self, block: Block) -> bool:
        item = self._item(self._index_of(block.type))
        if block.type == "text":
            self.text = block.text
            self._sink(AssistantText(item_id=item, text=block.text))
        elif block.type == "thinking":
            self._sink(Thinking(item_id=item, text=block.thinking))
        elif block.type in _TOOL_CALLS:
            given = block.input if isinstance(block.input, dict) else {}
            self._sink(ToolUse(item_id=block.id or item, name=block.name, input=given))
        else:
            return self._result(block)
        return True

    def _index_of(self, type_: str) -> int:
        """Return which block of the message this is: the first of its type that is not finished yet."""
        for index, block in sorted(self._blocks.items()):
            if block.type == type_ and not block.finished:
                block.finished = True
                return index
        index = max(self._blocks, default=-1) + 1
        self._blocks[index] = _Open(type_)
        self._blocks[index].finished = True
        return index

    # results of tools

    def _results(self, frame: User) -> bool:
        content = frame.message.content
        if isinstance(content, str):
            return False
        understood = [self._result(block) for block in content]
        return all(understood)

    def _result(self, block: Block) -> bool:
        if not block.type.endswith("tool_result"):
            return False
        self._sink(
            ToolResult(
                item_id=f"{block.tool_use_id}.result",
                tool_use_id=block.tool_use_id,
                content=block.content,
                is_error=bool(block.is_error),
            )
        )
        return True

    # news

    def _news(self, frame: System) -> bool:
        if frame.subtype != "api_retry":
            return frame.subtype in _QUIET
        delay = None if frame.retry_delay_ms is None else max(0, round(frame.retry_delay_ms))
        self._sink(Retrying(attempt=frame.attempt, category=frame.error or "unknown", retry_after_ms=delay))
        return True
