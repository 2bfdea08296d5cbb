"""What every test gets."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of the test's own with a short path: a unix socket's may have 107 bytes (macOS 103)."""
    folder = Path(tempfile.mkdtemp(prefix="dg-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
