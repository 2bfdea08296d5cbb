"""A place of its own for a daemon's files, and signal handlers put back as they were."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from dragoman.locate import Paths, find_paths
from dragomand.process.paths import prepare


@pytest.fixture
def bare_paths(tmp_path: Path) -> Paths:
    """Paths of which nothing exists yet but HOME."""
    return find_paths({"HOME": str(tmp_path)})


@pytest.fixture
def paths(bare_paths: Paths) -> Paths:
    """Paths with their folders."""
    prepare(bare_paths)
    return bare_paths


@pytest.fixture
def kept_signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before.items():
        signal.signal(number, handler)
