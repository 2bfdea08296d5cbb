"""Memory is short: the real callback, driven by an event such as the kernel's, and by what is free."""

import asyncio
import fcntl
import os
import struct
import sys
import termios
import uuid

import pytest
from dragoman_sim import Simulator
from dragomand.process.memory import PressureWatch, SampledWatch
from dragomand.upstream.claude_code import PoolSettings

TIOCSPTLCK, TIOCGPTN = 0x40045431, 0x80045430  # unlock the other end of a terminal, and its number

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells")


def an_urgent_word():
    """Make a watch whose kernel's word is a terminal's "something urgent", and what lets it be said."""
    terminals = []

    def make(on_pressure, _least, _worth):
        watch = PressureWatch(on_pressure, path="/dev/ptmx")
        fcntl.ioctl(watch._fd, termios.TIOCPKT, struct.pack("i", 1))
        fcntl.ioctl(watch._fd, TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("i", fcntl.ioctl(watch._fd, TIOCGPTN, bytes(4)))[0]
        terminals.append(os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY))
        assert watch.works
        return watch

    def say():
        termios.tcflush(terminals[0], termios.TCIFLUSH)
        os.close(terminals.pop())

    return make, say


def free_memory():
    """Make a watch that looks at what is free, and what lets there be little."""
    free = [8 << 30]

    def make(on_pressure, least, worth):
        return SampledWatch(on_pressure, least, worth, available=lambda: free[0], every_s=0.01)

    return make, lambda: free.__setitem__(0, 0)


@pytest.mark.parametrize("how", [an_urgent_word, free_memory])
async def test_when_memory_is_short_the_spares_end_and_the_others_are_told(world, how):
    make, be_short = how()
    told = asyncio.Event()
    async with Simulator() as sim:
        upstream = world.upstream(
            sim, pool=PoolSettings(max_spare=1, fill_delay_s=0.0, min_free_bytes=4), watch_memory=make
        )
        upstream.on_pressure = told.set
        run = await upstream.open(world.spec(), world.deny)
        assert (await run.send("hello", str(uuid.uuid4()), world.events())).status == "completed"
        await run.close()
        busy = await upstream.open(world.spec(), world.deny)
        await world.until(lambda: any(spare.ready for spare in upstream.pool().spares))
        be_short()
        async with asyncio.timeout(20):
            await told.wait()
        assert upstream.pool().spares == []
        assert upstream.pool().ended["pressure"] == 1
        upstream._made[1].balance()
        assert upstream.pool().spares == [], "and for a while there are none"
        await world.until(lambda: len(world.pids()) == 2)  # the guard of the one in use, and its Claude Code
        assert (await busy.send("and on", str(uuid.uuid4()), world.events())).status == "completed"
