"""A place of its own for a daemon, and the end of whatever was started there."""

import functools
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.locate import Paths, find_paths, read_record

STANDIN = [sys.executable, "-P", str(Path(__file__).with_name("standin_daemon.py"))]


class Place:
    """One user's folders: an environment that leads there, its paths, and who was started there."""

    def __init__(self, home: Path) -> None:
        runtime = home / "x"
        runtime.mkdir(mode=0o700)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "DRAGOMAN_"))
        }
        self.env = {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}
        self.paths: Paths = find_paths(self.env)

    def starts(self) -> list[int]:
        """The pids of all daemons that got as far as the lock."""
        file = Path(self.paths.state_dir, "starts")
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Kill the daemon that the lock file names and wait for its end, with the process descriptor."""
        pid = read_record(self.paths).get("pid")
        if isinstance(pid, int):
            kill_and_wait(pid, number)

    def end(self) -> None:
        """Stop the daemon there may be: politely, so that it can tell what of it was covered."""
        try:
            self.kill(signal.SIGTERM)
        finally:
            self.kill()


def kill_and_wait(pid: int, number: int = signal.SIGKILL) -> None:
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        os.kill(pid, number)
        ended, _, _ = select.select([descriptor], [], [], 10)
        assert ended, f"process {pid} did not end"
    finally:
        os.close(descriptor)


@pytest.fixture
def new_place(tmp_path: Path) -> Iterator[Callable[[], Place]]:
    places: list[Place] = []

    def make() -> Place:
        home = tmp_path / f"h{len(places)}"
        home.mkdir(mode=0o700)
        places.append(Place(home))
        return places[-1]

    yield make
    for place in places:
        place.end()


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture
def standin() -> list[str]:
    return list(STANDIN)


@pytest.fixture
def scripted() -> Iterator[Any]:
    """A `ScriptedDaemon` (see scripted_daemon.py)."""
    daemon = _scripted_daemon().ScriptedDaemon()
    yield daemon
    daemon.stop()


@pytest.fixture
def play() -> Any:
    """The module scripted_daemon, for its small functions: test modules cannot import one another."""
    return _scripted_daemon()


@functools.cache
def _scripted_daemon() -> Any:
    file = Path(__file__).with_name("scripted_daemon.py")
    spec = importlib.util.spec_from_file_location("scripted_daemon", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scripted_daemon"] = module
    spec.loader.exec_module(module)
    return module
