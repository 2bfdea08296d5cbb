"""What the store can refuse or fail with. No number of any wire is in here."""


class StorageError(Exception):
    """The database cannot do what was asked. `path` is its file, `reason` is a sentence without full stop."""

    def __init__(self, path: str, reason: str) -> None:
        """Say which file (`path`) and why (`reason`)."""
        super().__init__(f"{path}: {reason}.")
        self.path = path
        self.reason = reason


class StorageFullError(StorageError):
    """No space is left for the write, which has not happened. Reads go on; later writes are tried anew."""


class NewerSchemaError(StorageError):
    """A newer Dragoman wrote this database. It was left as it is."""

    def __init__(self, path: str, found: int, known: int) -> None:
        """Name both schema numbers: `found` in the file, `known` the highest that this version has."""
        super().__init__(
            path,
            f"its schema has number {found}, this version of Dragoman knows up to {known}; "
            "the file was not changed. Install a newer version, or move the file away to start a new history",
        )
        self.found = found
        self.known = known


class UnknownRowError(StorageError):
    """A session or turn that the write belongs to does not exist (any more)."""


class DuplicateMessageError(Exception):
    """A turn with this message id exists already; nothing was written. `turn_id` is that turn."""

    def __init__(self, turn_id: str) -> None:
        """Name the turn that has the message."""
        super().__init__(f"The message was submitted before; it belongs to turn {turn_id}.")
        self.turn_id = turn_id
