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
