"""Asks the simulator one faulty thing after another, each way that there is, and says what came of it."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dragoman_protocol.errors import BY_KIND
from dragoman_protocol.stream import Event, TextDelta
from dragoman_sim import Reply, Rule, Script, Simulator, When
from dragomand.engine.admission import Admission, DoorSettings
from dragomand.engine.call import Payer
from dragomand.engine.calls import Calls
from dragomand.engine.errors import from_failure
from dragomand.gateway.gateway import Gateway, GatewaySettings
from dragomand.process.ledger import Ledger
from dragomand.upstream.claude_code import ApiSettings, ClaudeCode
from dragomand.upstream.interface import PermissionAnswer, PermissionAsk, RunSpec
from dragomand.upstream.messages_api import DirectSettings, MessagesApi

KEY = "sk-ant-api03-of-the-fault-table"
REPLY = Reply(["this ", "and that"])
PATIENCE_S = 60.0
WITHIN_S = 20.0
"""The time bound of every row: a busy machine's, and far below the minutes of a wait without end."""


class Seen(NamedTuple):
    """What came of one turn."""

    status: str
    category: str | None
    http: int | None
    code: int | None
    """On the wire."""
    calls: int
    """How often the provider was asked."""
    text: str
    """What of the answer was told, last of all."""
    pause_ms: int | None
    message: str
    took_s: float


class Faulty:
    """The ways to the simulator."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("home", "work", "run"):
            (root / name).mkdir(mode=0o700)
        self.settings: dict[str, Any] = {}
        """`first_byte_s`, `idle_s`, `pings_s`, `stall_s`: short ones, where a row needs them."""

    async def ask(self, way: str, rows: Sequence[Any]) -> dict[str, Seen]:
        """Ask for each row (`name`, `fault`, `reply`) in turn, by one run where there are processes."""
        rules = [Rule(When(text=f"row {row.name}."), row.reply or REPLY, fault=row.fault) for row in rows]
        # A prompt has the failed ones before it in front: the newest is looked for first.
        rules = [*reversed(rules), Rule(When(regex="<system-reminder>"), "Resumed.")]
        async with Simulator(Script(rules=rules)) as sim, self._run(way, sim) as (run, turn):
            seen = {row.name: await self._turn(sim, run, turn, row.name) for row in rows}
            async with asyncio.timeout(PATIENCE_S):
                for record in sim.messages:
                    await sim.wait_ended(record)  # no call is left at the provider
        assert self.survivors() == []
        return seen

    def survivors(self) -> list[str]:
        """Return what still runs with this home."""
        mark = f"HOME={self.root}/home".encode()
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (process / "environ").read_bytes().split(b"\0"):
                        found.append((process / "cmdline").read_text().replace("\0", " "))
        return found

    async def _turn(self, sim: Simulator, run: Any, turn: list[str], name: str) -> Seen:
        before, began, told = len(sim.messages), time.monotonic(), list[Event]()
        turn[0] = name
        async with asyncio.timeout(WITHIN_S):
            outcome = await run.send(f"row {name}.", str(uuid.uuid4()), told.append)
        took_s = time.monotonic() - began
        failure = outcome.failure
        deltas = [event for event in told if isinstance(event, TextDelta)]
        last = [event.text for event in deltas if event.item_id == deltas[-1].item_id]
        return Seen(
            outcome.status,
            None if failure is None else failure.category,
            None if failure is None else failure.status,
            None if failure is None else BY_KIND[from_failure(failure).kind].code,
            len(sim.messages) - before,
            "".join(last),
            None if failure is None else failure.retry_after_ms,
            "" if failure is None else failure.message,
            took_s,
        )

    @asynccontextmanager
    async def _run(self, way: str, sim: Simulator) -> AsyncIterator[tuple[Any, list[str]]]:
        turn = [""]
        spec = RunSpec(session_id=str(uuid.uuid4()), cwd=self.root / "work")
        async with AsyncExitStack() as stack:
            if way == "messages_api":
                settings = DirectSettings(base_url=sim.url, **self._spans("_timeout_s"))
                api = MessagesApi(api_key=lambda: KEY, settings=settings)
                stack.push_async_callback(api.close)
                yield await api.open(spec, deny), turn
                return
            upstream = self._claude_code(sim)
            stack.push_async_callback(upstream.close)
            calls = self._calls()
            if way == "gateway":
                gateway = self._gateway(sim, calls)
                stack.push_async_callback(gateway.close)
                upstream.open_access = gateway.open_access
            run = await upstream.open(spec, deny)
            assert (run.api_access is not None) == (way == "gateway")
            if run.api_access is not None:
                grant_id = run.api_access.grant_id
                calls.charge(grant_id, lambda: Payer("me", turn_id=turn[0], credential=turn[0]))
            yield run, turn

    def _spans(self, ending: str = "_s") -> dict[str, float]:
        known = {name: self.settings.get(f"{name}_s") for name in ("first_byte", "idle", "pings")}
        return {f"{name}{ending}": span for name, span in known.items() if span is not None}

    def _claude_code(self, sim: Simulator) -> ClaudeCode:
        home = str(self.root / "home")
        path = "/usr/local/bin:/usr/bin:/bin"
        stall = {"stall_s": self.settings["stall_s"]} if "stall_s" in self.settings else {}
        return ClaudeCode(
            ledger=Ledger(str(self.root)),
            environment={"HOME": home, "PATH": path, "CLAUDE_CONFIG_DIR": f"{home}/.claude"},
            api_key=lambda: KEY,
            api=ApiSettings(base_url=sim.url, timeout_ms=self.settings.get("api_timeout_ms", 600_000)),
            **stall,
        )

    def _calls(self) -> Calls:
        admission = Admission(DoorSettings(attempts=1), clock=time.monotonic)
        admission.pools.host_of = lambda credential: credential  # what befalls one row is no other's affair
        return Calls(admission, clock=time.time, queue_timeout_s=PATIENCE_S)

    def _gateway(self, sim: Simulator, calls: Calls) -> Gateway:
        return Gateway(
            calls=calls,
            api_key=lambda: KEY,
            settings=GatewaySettings(base_url=sim.url, **self._spans()),
            runtime_dir=str(self.root / "run"),
            clock=time.time,
            logger=logging.getLogger("test.gateway"),
        )


async def deny(_: PermissionAsk) -> PermissionAnswer:
    return PermissionAnswer(allow=False)


@pytest.fixture
def faulty(tmp_path: Path) -> Faulty:
    return Faulty(tmp_path)
