"""Files put back as they were when a turn began, by the Claude Code process that kept copies of them."""

from dragoman_protocol.stream import StreamRewindFilesParams, StreamRewindFilesResult

from dragomand.store.store import Store
from dragomand.upstream.interface import UpstreamError

from .caller import Caller
from .errors import EngineError, from_failure
from .sessions import storage_errors
from .streams import Streams


class Rewinds:
    """Rewinds the files of open streams."""

    def __init__(self, streams: Streams, store: Store) -> None:
        """Ask the processes of *streams*; *store* knows the messages of turns."""
        self._streams = streams
        self._store = store

    async def rewind(self, params: StreamRewindFilesParams, caller: Caller) -> StreamRewindFilesResult:
        """Put files back, or say which would be; raises `EngineError`."""
        message_id = await self._message_of(params.session_id, params.turn_id)
        async with self._streams.between_turns(params.session_id, caller) as (run, options):
            if not options.file_checkpointing:
                text = "No copies of files are kept: the stream was opened without fileCheckpointing."
                raise EngineError("invalid_params", text, path="$.sessionId", reason="no copies")
            try:
                rewound = await run.rewind_files(message_id, dry_run=params.dry_run)
            except UpstreamError as error:
                raise from_failure(error.failure, session_id=params.session_id) from error
        return StreamRewindFilesResult(
            files=list(rewound.files),
            insertions=rewound.insertions,
            deletions=rewound.deletions,
            rewound=not params.dry_run,
        )

    async def _message_of(self, session_id: str, turn_id: str) -> str:
        """Return the id under which the turn's message was sent."""
        with storage_errors():
            items = await self._store.turn_items(turn_id)
        messages = [item.item_id for item in items if item.kind == "user_message"]
        if not messages or items[0].session_id != session_id:
            text = f"Session {session_id!r} has no turn {turn_id[:100]!r}; session/get lists its turns."
            raise EngineError("invalid_params", text, path="$.turnId", reason="no such turn")
        return messages[0]
