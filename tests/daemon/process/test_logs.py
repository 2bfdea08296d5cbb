import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dragoman.locate import UntrustedError
from dragomand.process import logs
from dragomand.process.logs import LogFile


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "daemon.log")


@pytest.fixture
def log(path: str) -> Iterator[LogFile]:
    log = LogFile(path, 100, 3)
    yield log
    log.close()


def read(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def test_lines_are_appended_in_a_private_file(log: LogFile, path: str) -> None:
    assert log.write(b"one")
    assert log.write(b"two")
    assert read(path) == ["one", "two"]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_an_existing_file_is_continued_and_made_private(path: str) -> None:
    Path(path).write_text("before\n")
    os.chmod(path, 0o644)
    log = LogFile(path, 100, 1)
    log.write(b"after")
    log.close()
    assert read(path) == ["before", "after"]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_rotation_keeps_the_newest(log: LogFile, path: str, tmp_path: Path) -> None:
    for number in range(60):
        assert log.write(b"line %02d.." % number)
    assert sorted(os.listdir(tmp_path)) == [
        "daemon.log",
        "daemon.log.1",
        "daemon.log.2",
        "daemon.log.3",
    ]
    oldest_first = [f"{path}.3", f"{path}.2", f"{path}.1", path]
    kept = [line for file in oldest_first for line in read(file)]
    assert kept == [f"line {number:02d}.." for number in range(60 - len(kept), 60)]
    assert len(kept) > 30
    assert all(os.path.getsize(tmp_path / name) <= 100 for name in os.listdir(tmp_path))


def test_one_line_longer_than_the_file_may_be_stands_alone(log: LogFile, path: str) -> None:
    log.write(b"short")
    log.write(b"x" * 500)
    log.write(b"end")
    assert read(f"{path}.2") == ["short"]
    assert read(f"{path}.1") == ["x" * 500]
    assert read(path) == ["end"]


def test_a_removed_file_is_made_anew(log: LogFile, path: str) -> None:
    log.write(b"one")
    os.unlink(path)
    assert log.write(b"two")
    assert read(path) == ["two"]


def test_reopening_follows_the_path(log: LogFile, path: str) -> None:
    log.write(b"one")
    os.rename(path, f"{path}.old")
    log.write(b"two")
    log.reopen()
    log.write(b"three")
    assert read(f"{path}.old") == ["one", "two"]
    assert read(path) == ["three"]


def test_what_cannot_be_reopened_goes_on_as_it_was(log: LogFile, path: str) -> None:
    os.rename(path, f"{path}.old")
    os.mkdir(path)
    log.reopen()
    assert log.write(b"still here")
    assert read(f"{path}.old") == ["still here"]
    assert log.dropped == 0


def test_where_nothing_can_be_renamed_the_file_grows(path: str) -> None:
    log = LogFile(path, 100, 1)
    os.mkdir(f"{path}.1")
    Path(f"{path}.1", "in the way").touch()
    for _ in range(40):
        assert log.write(b"0123456789")
    log.close()
    assert len(read(path)) == 40
    assert log.dropped == 0


def test_a_removed_file_whose_place_is_taken_is_counted(log: LogFile, path: str, tmp_path: Path) -> None:
    os.unlink(path)
    os.symlink(tmp_path / "elsewhere", path)
    assert not log.write(b"lost")
    assert log.dropped == 1
    assert not (tmp_path / "elsewhere").exists()
    os.unlink(path)
    assert log.write(b"found")
    assert read(path) == ["found"]


def test_a_full_disk_drops_lines_and_never_tears_two_together(path: str) -> None:
    """The kernel's own limit on file sizes plays the full disk: it too cuts a write short, then refuses."""
    import signal

    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = LogFile(path, 1000, 1)
    try:
        assert log.write(b"whole")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        assert not log.write(b"0123456789")
        assert not log.write(b"nothing")
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert log.write(b"whole again")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
        log.close()
    assert read(path) == ["whole", "0123", "whole again"]
    assert log.dropped == 2


def test_a_closed_log_counts_what_comes_later(log: LogFile, path: str) -> None:
    log.close()
    log.close()
    assert not log.write(b"late")
    assert log.dropped == 1
    log.reopen()
    assert read(path) == []


def test_somebody_else_s_file_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(UntrustedError, match="not a file of our own"):
        LogFile(path, 100, 1)


def test_threads_do_not_mix_their_lines(path: str) -> None:
    log = LogFile(path, 10_000_000, 1)
    threads = [
        threading.Thread(target=lambda name=name: [log.write(name * 50) for _ in range(200)])
        for name in (b"a", b"b", b"c")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    log.close()
    found = read(path)
    assert sorted(set(found)) == ["a" * 50, "b" * 50, "c" * 50]
    assert len(found) == 600


def test_the_file_is_not_inherited(log: LogFile) -> None:
    assert not os.get_inheritable(log._fd)
    assert logs._FLAGS & os.O_NOFOLLOW
