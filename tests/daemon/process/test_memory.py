"""What is said of memory, looked at on this machine, and with files of our own in place of the kernel's."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dragomand.process import memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
HOLDS = "import sys; held = b'x' * {size}; print('ready', flush=True); sys.stdin.read()"


@linux
def test_what_a_process_and_its_descendants_hold() -> None:
    holder = HOLDS.format(size=50 << 20)
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {holder!r}], stdin=0, stdout=1)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        held = memory.held_bytes(process.pid)
        process.communicate()
    assert held is not None
    assert 50 << 20 < held < 150 << 20
    assert memory.held_bytes(process.pid) is None, "it has gone"
    assert memory.descendants_of(process.pid) is None


@linux
def test_who_is_below() -> None:
    script = "sleep 60 & echo $!; read x; kill $!"
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=-1, stdout=-1) as shell:
        assert shell.stdout is not None
        sleep = int(shell.stdout.readline())
        assert memory.descendants_of(shell.pid) == [sleep]
        shell.communicate(b"\n")


@linux
def test_what_is_free() -> None:
    free = memory.available_bytes()
    assert free is not None
    assert 0 < free < 1 << 46


@pytest.mark.parametrize(
    ("most", "current", "free"),
    [("max", "5", None), ("100", "30", 70), ("100", "130", 0), ("nonsense", "1", None), (None, None, None)],
)
def test_a_group_with_a_bound(
    tmp_path: Path, most: str | None, current: str | None, free: int | None
) -> None:
    if most is not None and current is not None:
        (tmp_path / "memory.max").write_text(f"{most}\n")
        (tmp_path / "memory.current").write_text(f"{current}\n")
    assert memory._group(str(tmp_path)) == free


async def test_a_system_that_does_not_tell_of_pressure(tmp_path: Path) -> None:
    def never() -> None:
        raise AssertionError("there is no pressure")

    watch = memory.PressureWatch(never, path=str(tmp_path / "nothing"))
    assert not watch.works
    watch.close()


@pytest.mark.skipif(not os.path.exists("/proc/pressure/memory"), reason="this kernel does not tell")
async def test_pressure_is_watched_where_the_kernel_tells() -> None:
    told = asyncio.Event()
    watch = memory.PressureWatch(told.set)
    if watch.works:  # an old kernel has the file and allows no ordinary user to watch it
        assert not told.is_set()
    watch.close()
    watch.close()
    assert not watch.works


@linux
def test_who_was_started_by_another_thread_and_who_is_an_orphan_belong_to_it_too(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, threading\n"
        "shell = ['/bin/sh', '-c', 'sleep 60 & echo $!; read x']\n"
        "thread = threading.Thread(target=lambda: subprocess.run(shell, stdin=0, stdout=1))\n"
        "thread.start(); thread.join()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        sleep = int(process.stdout.readline())
        below = memory.descendants_of(process.pid)
        assert below is not None
        assert len(below) == 2
        assert sleep in below
        os.kill(sleep, 9)
        process.communicate(b"\n")


@linux
def test_a_kernel_that_lists_no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CHILDREN", "/proc/{pid}/task/{thread}/nothing")
    script = "sleep 60 & echo $!; read x; kill $!"
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=-1, stdout=-1) as shell:
        assert shell.stdout is not None
        sleep = int(shell.stdout.readline())
        assert memory.descendants_of(shell.pid) == [sleep]
        shell.communicate(b"\n")


class Free:
    """What is free, said by us, and who asked."""

    def __init__(self, amount: int | None) -> None:
        self.amount = amount
        self.asked = asyncio.Event()
        self.short = asyncio.Event()
        self.worth = True
        self.wondered = asyncio.Event()

    def __call__(self) -> int | None:
        self.asked.set()
        return self.amount

    def watch(self) -> memory.SampledWatch:
        return memory.SampledWatch(
            self.short.set, 1000, self.is_worth, available=self, every_s=0.001
        )

    def is_worth(self) -> bool:
        self.wondered.set()
        return self.worth


async def heard(event: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await event.wait()
    event.clear()


async def test_where_the_kernel_does_not_tell_it_is_looked_at_what_is_free() -> None:
    free = Free(1000)
    watch = free.watch()
    assert not watch.looks, "not before there is something to give back"
    watch.begin()
    watch.begin()
    await heard(free.asked)
    await heard(free.asked)
    assert not free.short.is_set()
    free.amount = 999
    await heard(free.short)
    free.amount = None
    await heard(free.asked)
    free.worth = False
    free.wondered.clear()
    await heard(free.wondered)
    assert not watch.looks
    watch.begin()
    assert watch.looks
    watch.close()
    watch.close()
    watch.begin()
    assert not watch.looks


async def test_which_way_memory_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    told = memory.watch_memory(lambda: None, 1, lambda: True)
    told.begin()
    told.close()
    monkeypatch.setattr(memory.PressureWatch, "works", False)
    assert isinstance(memory.watch_memory(lambda: None, 1, lambda: True), memory.SampledWatch)
