"""The text of an answer as it grows, exact whatever deltas were coalesced or left out."""

from dragoman_protocol.stream import AssistantText, Event, TextDelta


class GrowingText:
    """Gives each character of a turn's answer once, in order.

    A delta says where it begins; one that begins beyond what has been said is not used, and what is missing
    comes with the whole item. An empty line is put between one item and the next.
    """

    def __init__(self) -> None:
        """Begin with nothing said."""
        self._lengths: dict[str, int] = {}
        self._last = ""

    @property
    def said(self) -> bool:
        """Whether there was any text yet."""
        return bool(self._lengths)

    def new_text(self, event: Event) -> str:
        """Return what *event* adds to the text, often nothing."""
        if not isinstance(event, TextDelta | AssistantText):
            return ""
        said = self._lengths.get(event.item_id, 0)
        begins = event.offset if isinstance(event, TextDelta) else 0
        piece = event.text[said - begins :] if begins <= said else ""
        if not piece:
            return ""
        lead = "\n\n" if self._last and self._last != event.item_id else ""
        self._lengths[event.item_id] = said + len(piece)
        self._last = event.item_id
        return lead + piece
