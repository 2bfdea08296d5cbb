"""The real Claude Code CLI against the simulator, in a home of its own, so that it finds no credential."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dragoman_protocol.stream import Event
from dragoman_sim import Simulator
from dragomand.process.ledger import Ledger
from dragomand.upstream.claude_code import ApiSettings, ClaudeCode
from dragomand.upstream.interface import PermissionAnswer, PermissionAsk, RunSpec, TurnOutcome, UpstreamRun

KEY = "sk-ant-api03-known-only-by-descriptor"


class Events(list[Event]):
    """A sink that remembers, and can be waited on."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.append(event)
        self._changed.set()

    async def wait_for(self, kind: type, deadline_s: float = 20.0) -> Any:
        """Return the first event of *kind*, once it is there."""
        async with asyncio.timeout(deadline_s):
            while not (found := self.of(kind)):
                self._changed.clear()
                await self._changed.wait()
        return found[0]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]


async def deny(_: PermissionAsk) -> PermissionAnswer:
    return PermissionAnswer(allow=False)


async def allow(_: PermissionAsk) -> PermissionAnswer:
    return PermissionAnswer(allow=True)


@dataclass
class World:
    """A home, a project folder, and a simulator if the test wants one."""

    root: Path
    key: str = KEY
    upstreams: list[ClaudeCode] = field(default_factory=list)
    deny = staticmethod(deny)
    allow = staticmethod(allow)
    events = Events
    api = ApiSettings

    @property
    def cwd(self) -> Path:
        return self.root / "project"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def config(self) -> Path:
        return self.home / ".claude"

    def cli_pid(self, talk: "Talk") -> int:
        """Return the process id of the CLI itself: the guard's only child."""
        guard = talk.run._child.pid
        return int(Path(f"/proc/{guard}/task/{guard}/children").read_text().split()[0])

    def pids(self) -> list[int]:
        """Return all processes that were started with this home."""
        mark = f"HOME={self.home}".encode()
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (process / "environ").read_bytes().split(b"\0"):
                        found.append(int(process.name))
        return found

    def survivors(self) -> list[str]:
        """Return the command lines of these processes."""
        return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in self.pids()]

    def environment(self) -> dict[str, str]:
        home, path = str(self.home), "/usr/local/bin:/usr/bin:/bin"
        return {"HOME": home, "PATH": path, "CLAUDE_CONFIG_DIR": str(self.config)}

    @staticmethod
    async def until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
        """Wait until *condition* holds; for what nobody can be told of by an event."""
        async with asyncio.timeout(deadline_s):
            while not condition():  # noqa: ASYNC110  # there is no event, that is why
                await asyncio.sleep(0.01)

    def spec(self, **choices: Any) -> RunSpec:
        return RunSpec(**{"session_id": str(uuid.uuid4()), "cwd": self.cwd, **choices})

    def upstream(self, sim: Simulator | None = None, **settings: Any) -> ClaudeCode:
        base_url = "http://127.0.0.1:9" if sim is None else sim.url
        given: dict[str, Any] = {
            "ledger": Ledger(str(self.root)),
            "environment": self.environment(),
            "api_key": lambda: self.key,
            "api": ApiSettings(base_url=base_url),
            **settings,
        }
        made = ClaudeCode(**given)
        self.upstreams.append(made)
        return made


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.cwd.mkdir()
    made.config.mkdir(parents=True)
    yield made
    for upstream in made.upstreams:
        await upstream.close()


@dataclass
class Talk:
    """One run and the simulator behind it."""

    sim: Simulator
    run: Any
    upstream: ClaudeCode

    async def send(self, prompt: Any, events: Events | None = None) -> TurnOutcome:
        async with asyncio.timeout(60):
            return await self.run.send(prompt, str(uuid.uuid4()), Events() if events is None else events)


Talking = Callable[..., Any]


@pytest.fixture
def talking(world: World) -> Talking:
    """`async with talking(rules, ask=…, **spec) as talk`: an open run of the real CLI."""

    @asynccontextmanager
    async def talking(
        rules: Any = (),
        *,
        ask: Callable[[PermissionAsk], Awaitable[PermissionAnswer]] = deny,
        settings: dict[str, Any] | None = None,
        chosen_settings: dict[str, Any] | None = None,
        sim: Simulator | None = None,
        **choices: Any,
    ) -> AsyncIterator[Talk]:
        async with AsyncExitStack() as stack:
            if sim is None:
                sim = await stack.enter_async_context(Simulator(rules))
            upstream = world.upstream(sim, **(settings or {}))
            run: UpstreamRun = await upstream.open(world.spec(settings=chosen_settings, **choices), ask)
            stack.push_async_callback(run.close)
            yield Talk(sim, run, upstream)

    return talking
