"""Starts programs under a guard, hands over what they print, and ends them with all their descendants.

A child is an asyncio subprocess protocol: what it prints is delivered by the loop as it comes and nobody is
ever waited for, so a reader cannot fall behind. Secrets go by file descriptor: a pipe that holds the secret
and its end, whose number is in the environment; the first to read it empties it.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from dragomand.process import guard, identity, memory
from dragomand.process.ledger import MARK, Entry, Ledger, sweep

_IMPORT = "import sys; sys.path.append({folder!r}); import guard; sys.exit(guard.main(sys.argv[1:]))"

GUARD: tuple[str, ...] = (
    *(sys.executable, "-I", "-S", "-c"),
    _IMPORT.format(folder=os.path.dirname(guard.__file__)),
)
"""The command that starts the guard. It is imported, because a script is compiled anew each time: 5 ms."""

END_OF_INPUT_S = 1.0
"""How long, in seconds, a child may take to end by itself once its input has ended."""

TERMINATE_S = 3.8
"""How long, in seconds, the guard may take after SIGTERM: its own grace, and the killing."""

KILL_S = 1.0
"""How long, in seconds, the kernel may take after SIGKILL."""

LINGER_S = 0.5
"""How long, in seconds, output is read on after the guard has gone; then somebody who got away holds it."""

STDERR_CHARS = 8_000
"""How much of the end of a child's error output is kept."""

_MOST_SECRET_BYTES = 16_384  # what fits into any pipe, so that writing never blocks


@dataclass(frozen=True, slots=True)
class Command:
    """What to start and how."""

    argv: Sequence[str]
    env: Mapping[str, str]
    """The whole environment; nothing is inherited."""
    cwd: str
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    """By the name of the variable that is to hold the number of the file descriptor."""
    open_files: int | None = None
    """The soft limit of open files; None: as it is here."""


class Child(asyncio.SubprocessProtocol):
    """A started program. `on_output` gets its standard output, `on_end` is called once when all is over."""

    def __init__(
        self, entry: Entry, life: int, on_output: Callable[[bytes], None], on_end: Callable[[], None]
    ) -> None:
        """Use `start`."""
        self._entry = entry
        self._on_output = on_output
        self._on_end = on_end
        self._transport: asyncio.SubprocessTransport | None = None
        self._stderr = bytearray()
        self._life = life
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._linger: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self.status: int | None = None
        """The exit status once it has ended; 128 + n for signal n."""

    @property
    def pid(self) -> int:
        """The guard's process id."""
        return self._running().get_pid()

    @property
    def ended(self) -> bool:
        """Whether the program and all its descendants are gone."""
        return self._over.done()

    @property
    def stderr(self) -> str:
        """The end of what it printed on its error output."""
        return self._stderr.decode(errors="replace").strip()

    @property
    def listens(self) -> bool:
        """Whether its input is open. It closes with the program's end, before its descendants are gone."""
        stdin = self._input()
        return not self.ended and stdin is not None and not stdin.is_closing()

    @property
    def alive(self) -> bool:
        """Whether it listens, and neither the program nor its guard is about to end."""
        if not self.listens:
            return False
        program = memory.children_of(self.pid)[:1]  # what it has left to its guard comes after it
        return not any(identity.is_dying(pid) for pid in (self.pid, *program))

    def write(self, data: bytes) -> bool:
        """Send *data* to its input without waiting; False if it does not listen, and then has got nothing."""
        stdin = self._input()
        if stdin is None or not self.listens:
            return False
        stdin.write(data)
        return not stdin.is_closing()

    async def wait(self) -> None:
        """Wait until it and its descendants are gone."""
        await asyncio.shield(self._over)

    def close_soon(self) -> "asyncio.Task[None]":
        """Begin to end it, and return the task that does; the same task every time."""
        if self._closing is None:
            loop = asyncio.get_running_loop()
            self._closing = loop.create_task(self._ladder(), name=f"end child {self.pid}")
        return self._closing

    async def close(self) -> None:
        """End it: end of input, SIGTERM, SIGKILL; afterwards it and its descendants are gone, within 6 s.

        Cancelling the caller does not stop the ladder.
        """
        await asyncio.shield(self.close_soon())

    def let_go(self) -> None:
        """Tell the guard that nobody cares any more, and take the child off the ledger. Can be repeated."""
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
            self._entry.ended()

    # what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take output."""
        if fd == 1:
            self._on_output(data)
        else:
            self._stderr += data
            del self._stderr[:-STDERR_CHARS]

    def process_exited(self) -> None:
        """Note that the guard has gone. One that was killed could not do its work, so it is done here."""
        transport = self._running()
        code = transport.get_returncode()
        if code is not None and code < 0:
            sweep(self._entry.mark)
        self._linger = asyncio.get_running_loop().call_later(LINGER_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end: the guard has gone and its pipes with it."""
        transport = self._running()
        code = transport.get_returncode()
        self.status = code if code is None or code >= 0 else 128 - code
        if self._linger is not None:
            self._linger.cancel()
        transport.close()
        self.let_go()
        self._over.set_result(None)
        self._on_end()

    # inside

    def _input(self) -> "asyncio.WriteTransport | None":
        return cast("asyncio.WriteTransport | None", self._running().get_pipe_transport(0))

    def _running(self) -> asyncio.SubprocessTransport:
        assert self._transport is not None
        return self._transport

    async def _ladder(self) -> None:
        stdin = self._running().get_pipe_transport(0)
        assert stdin is not None
        stdin.close()
        if await self._is_over_within(END_OF_INPUT_S):
            return
        self._send(signal.SIGTERM)
        if await self._is_over_within(TERMINATE_S):
            return
        self._send(signal.SIGKILL)
        sweep(self._entry.mark)
        await self._is_over_within(KILL_S)

    async def _is_over_within(self, seconds: float) -> bool:
        await asyncio.wait([self._over], timeout=seconds)
        return self.ended

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._running().send_signal(number)


async def start(
    command: Command,
    ledger: Ledger,
    on_output: Callable[[bytes], None],
    on_end: Callable[[], None],
    guard_command: Sequence[str] = GUARD,
) -> Child:
    """Start *command* under a guard and note it in *ledger*.

    Raises `OSError` if it cannot be started because of its working directory or for want of resources; a
    program that is missing or not executable shows as exit status 127 or 126.
    """
    entry = ledger.reserve()
    life_reader, life_writer = os.pipe()
    child = Child(entry, life_writer, on_output, on_end)
    fds = [life_reader]
    try:
        env = {**command.env, MARK: entry.mark}
        for name, secret in command.secrets.items():
            fd = _filled_pipe(secret)
            fds.append(fd)
            env[name] = str(fd)
        keep = ",".join(map(str, fds[1:])) or "-"
        limit = "-" if command.open_files is None else str(command.open_files)
        loop = asyncio.get_running_loop()
        await loop.subprocess_exec(
            lambda: child,
            *guard_command,
            *(str(life_reader), keep, limit),
            *command.argv,
            env=env,
            cwd=command.cwd,
            pass_fds=tuple(fds),
            close_fds=True,
        )
    except BaseException:
        child.let_go()
        raise
    finally:
        for fd in fds:
            os.close(fd)
    entry.started(child.pid)
    return child


def _filled_pipe(secret: bytes) -> int:
    """Return the read end of a pipe that holds *secret* and nothing after it."""
    if len(secret) > _MOST_SECRET_BYTES:
        raise ValueError(f"A secret of {len(secret)} bytes; at most {_MOST_SECRET_BYTES} fit.")
    reader, writer = os.pipe()
    try:
        os.write(writer, secret)
    finally:
        os.close(writer)
    return reader
