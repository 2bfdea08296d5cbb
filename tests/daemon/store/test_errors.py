from dragomand.store.errors import (
    DuplicateMessageError,
    NewerSchemaError,
    StorageError,
    StorageFullError,
    UnknownRowError,
)


def test_errors_say_where_and_why() -> None:
    failed = StorageError("/x/db", "the disk is gone")
    assert (str(failed), failed.path, failed.reason) == (
        "/x/db: the disk is gone.",
        "/x/db",
        "the disk is gone",
    )
    newer = NewerSchemaError("/x/db", 7, 3)
    assert (newer.found, newer.known, newer.path) == (7, 3, "/x/db")
    assert "number 7" in str(newer)
    assert "up to 3" in str(newer)
    assert "t9" in str(DuplicateMessageError("t9"))


def test_a_duplicate_is_no_failure_of_the_storage() -> None:
    assert not issubclass(DuplicateMessageError, StorageError)
    assert all(
        issubclass(kind, StorageError) for kind in (StorageFullError, NewerSchemaError, UnknownRowError)
    )
