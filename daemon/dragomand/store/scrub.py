"""Zero what `PRAGMA secure_delete` leaves: copies of rows in the unallocated middle of b-tree pages.

SQLite overwrites what it deletes, but not the old places of rows that it moved from page to page before, when
it balanced a tree. Such a copy outlives the delete of its row (shown by the tests, and only a VACUUM, which
takes as long and as much space as the whole database, would remove it). The bytes have no meaning to SQLite,
so they can be zeroed in place while no connection is open: whichever of the old and the new bytes survive
a power cut, the page is the same to SQLite. That a write leaves bytes beside it alone is what SQLite itself
takes for granted ("powersafe overwrite").

The layout used here is the documented file format, which is promised not to change.
"""

import os
import struct

_HEADER_BYTES = 100
_PENDING_BYTE = 2**30
_B_TREE_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}
"""Size of a b-tree page's header by its type: interior index, interior table, leaf index, leaf table."""
_TOO_LARGE = 2 * 2**24
"""With so many pages, the first byte of an overflow page, a page number's, could look like a type."""
_PAGES_AT_ONCE = 256


def zero_unused(path: str) -> int:
    """Zero the unallocated bytes of every b-tree page of the database at `path`; return how many changed.

    No connection to it may be open, in this process or another, and its write-ahead log must be empty. Reads
    the whole file once (about 0.5 s a gigabyte). Raises OSError.
    """
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        header = os.pread(file, _HEADER_BYTES, 0)
        if len(header) < _HEADER_BYTES:
            return 0
        changed = _zero_pages(file, header)
        if changed:
            os.fsync(file)
    finally:
        os.close(file)
    return changed


def _zero_pages(file: int, header: bytes) -> int:
    page_size, reserved = struct.unpack_from(">H", header, 16)[0], header[20]
    page_size = 65536 if page_size == 1 else page_size
    pages = os.fstat(file).st_size // page_size
    if pages >= _TOO_LARGE:
        raise OSError(f"a database of {pages} pages is too large to be scrubbed")
    auto_vacuum = struct.unpack_from(">I", header, 52)[0] != 0
    skipped = _pages_of_no_tree(pages, page_size, page_size - reserved, auto_vacuum)
    changed = 0
    for first in range(1, pages + 1, _PAGES_AT_ONCE):
        chunk = os.pread(file, page_size * _PAGES_AT_ONCE, (first - 1) * page_size)
        for number in range(first, first + len(chunk) // page_size):
            if number in skipped:
                continue
            at = (number - first) * page_size
            start, end = _unallocated(chunk, at, _HEADER_BYTES if number == 1 else 0, page_size - reserved)
            if chunk[at + start : at + end].strip(b"\0"):
                os.pwrite(file, bytes(end - start), (number - 1) * page_size + start)
                changed += 1
    return changed


def _pages_of_no_tree(pages: int, page_size: int, usable: int, auto_vacuum: bool) -> set[int]:
    """Return the numbers of the lock byte's page and of the pointer maps, whose first byte is no type."""
    lock_page = _PENDING_BYTE // page_size + 1
    maps = range(2, pages + 1, usable // 5 + 1) if auto_vacuum else ()
    return {lock_page, *(number + (number == lock_page) for number in maps)}


def _unallocated(chunk: bytes, at: int, offset: int, usable: int) -> tuple[int, int]:
    """Return the part of the page at `at` between its cell pointers and its cells; empty for other pages.

    `offset` is where the page's header is in it.
    """
    kind, cells, content = struct.unpack_from(">BxxHH", chunk, at + offset)
    if kind not in _B_TREE_HEADERS:
        return 0, 0
    start = offset + _B_TREE_HEADERS[kind] + 2 * cells
    end = content or 65536
    return (start, end) if start < end <= usable else (0, 0)
