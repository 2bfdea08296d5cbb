"""The upstream `claude_code`: Claude Code processes, each under a guard, in an environment of our choice."""

import asyncio
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dragomand.process import children
from dragomand.process.ledger import Ledger
from dragomand.process.memory import PressureWatch, SampledWatch, watch_memory
from dragomand.telemetry.redaction import Redactor
from dragomand.upstream.claude_code.command import (
    KEY_VARIABLE,
    ApiSettings,
    build_arguments,
    build_environment,
    build_initialize,
    early,
    is_plain,
    may_be_ahead,
    may_be_anywhere,
    through_gateway,
)
from dragomand.upstream.claude_code.executable import find_executable
from dragomand.upstream.claude_code.pool import Pool, PoolSettings, Recipe
from dragomand.upstream.claude_code.rehearsal import may_rehearse, rehearse
from dragomand.upstream.claude_code.reuse import Kept, Lease, tag_of
from dragomand.upstream.claude_code.run import STALL_S, ClaudeCodeRun
from dragomand.upstream.claude_code.spare_key import key_of, world_of
from dragomand.upstream.claude_code.starts import Breaker, Kind, Starts
from dragomand.upstream.claude_code.transcript import Transcript, config_dir
from dragomand.upstream.claude_code.unix_socket import UnixSocketSupport
from dragomand.upstream.claude_code.wire import MAX_LINE_BYTES
from dragomand.upstream.interface import (
    ApiAccess,
    AskPermission,
    Failure,
    OpenAccess,
    PermissionAnswer,
    PermissionAsk,
    PoolState,
    RunSpec,
    StartBreaker,
    UpstreamError,
)
from dragomand.upstream.limits_heard import OnLimits, nobody

WatchMemory = Callable[
    [Callable[[], None], int, Callable[[], bool]], "PressureWatch | SampledWatch"
]
"""Makes what tells that memory is short (`process.memory.watch_memory`)."""

_SHORT = 4
"""Where the kernel says nothing: memory is short below this part of what spares leave free."""


class ClaudeCode:
    """Starts runs of Claude Code (`Upstream`)."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        environment: Mapping[str, str],
        api_key: Callable[[], str | None],
        executable: str | None = None,
        api: ApiSettings | None = None,
        start_timeout_s: float = 30.0,
        stall_s: float = STALL_S,
        open_files: int | None = None,
        guard_command: Sequence[str] = children.GUARD,
        max_line_bytes: int = MAX_LINE_BYTES,
        pool: PoolSettings | None = None,
        neutral_dir: str | None = None,
        breaker: Breaker | None = None,
        watch_memory: WatchMemory = watch_memory,
    ) -> None:
        """Start processes as these settings say; nothing is read from anywhere else.

        *environment* is where the allowed variables come from (`command.INHERITED`). *api_key* gives the
        key, or None for Claude Code's own login. *executable* None: the bundled one, else `claude` on the
        environment's PATH. *open_files* is the soft limit that processes get. *stall_s* is the silence that
        ends a turn. *pool* None: nothing is started ahead; *neutral_dir* is an empty folder of ours, made
        when needed, where spares of no folder wait (None: there are none). *watch_memory* makes what tells
        that memory is short.
        """
        self._ledger = ledger
        self._environment = dict(environment)
        self._api_key = api_key
        self._executable = executable or None
        self._api = api or ApiSettings()
        self._start_timeout_s = start_timeout_s
        self._stall_s = stall_s
        self._open_files = open_files
        self._guard_command = guard_command
        self._max_line_bytes = max_line_bytes
        self._neutral_dir = neutral_dir
        self._breaker = breaker
        self._pool_settings = pool or PoolSettings(max_spare=0)
        self._kept = Kept(self._pool_settings.most_kept, self._pool_settings.keep_s)
        self._runs: set[ClaudeCodeRun] = set()
        self._sockets = UnixSocketSupport()
        self.open_access: OpenAccess | None = None
        """Gives each run its access to the gateway; None, or no access: the key goes by file descriptor."""
        self.on_limits: OnLimits = nobody
        """Is told whatever any of the processes says of limits."""
        self._unclaimable: str | None = None
        """The world in which spares of no folder do not work."""
        self._unrehearsable: str | None = None
        """The world in which spares cannot be warmed up by a turn."""
        self.on_pressure: Callable[[], None] = lambda: None
        """Called when memory is short, after the spares were ended."""
        self._watch_memory = watch_memory
        self._made: tuple[Starts, Pool, PressureWatch | SampledWatch] | None = None

    async def open(self, spec: RunSpec, ask: AskPermission) -> ClaudeCodeRun | Lease:
        """Start a run, or take a spare, and wait until it is ready; see `Upstream.open`."""
        late = spec.mcp_servers or spec.settings
        if not self._pool_settings.reuse or spec.client is None or late or not may_be_ahead(spec):
            return await self._open(spec, ask)
        _, pool, _ = self._machinery()
        tag = tag_of(self._key(early(spec)), spec, spec.client)
        if (lease := self._kept.take(tag, spec, ask)) is not None:
            pool.count("warm")
            return lease
        return self._kept.lend(await self._open(spec, ask), tag)

    async def _open(self, spec: RunSpec, ask: AskPermission) -> ClaudeCodeRun:
        start = self._start_of(spec)
        await _check_record(spec, Transcript(start.config_dir, spec.resume or "", spec.resume_holds))
        _, pool, _ = self._machinery()
        if not may_be_ahead(spec) or not self._pool_settings.max_spare:
            # A conversation that cannot be resumed says nothing of new ones.
            own = f"{self._key(early(spec))} {spec.resume or ''}"
            kind = Kind(f"{start.world[:16]} {own}", is_plain(spec))
            return await self._begin(spec, ask, start, kind)
        pool.in_world(start.world)
        recipe, generic = self._recipes(spec, start)
        over = pool.use(recipe, generic)
        try:
            run = await self._warm(spec, ask, [recipe] if generic is None else [recipe, generic])
            pool.count("cold" if run is None else "warm")
            if run is None:
                run = await self._begin(spec, ask, start, self._kind_of(recipe, start.world))
        except BaseException:
            over()
            raise
        run.on_turn_end = over
        if run.pid is None:
            run.tell_turn_end()  # it has ended meanwhile
        return run

    def pool(self) -> PoolState:
        """Return what is kept warm."""
        if self._made is None:
            return PoolState(max_spare=self._pool_settings.max_spare)
        return replace(self._made[1].state(), kept=self._kept.count)

    def start_breakers(self) -> list[StartBreaker]:
        """Return what stops starts, or may soon."""
        return [] if self._made is None else self._made[0].breakers()

    def reset_starts(self) -> int:
        """Let what crashed start at once, spares too; returns how many breakers were not closed."""
        if self._made is None:
            return 0
        starts, pool, _ = self._made
        reset = starts.reset()
        pool.balance()
        return reset

    async def close(self) -> None:
        """End every run that is still open and every spare, all at once."""
        if self._made is not None:
            _, pool, pressure = self._made
            pressure.close()
            await asyncio.gather(pool.close(), self._kept.close(), *(run.close() for run in list(self._runs)))
        await asyncio.gather(*(run.close() for run in list(self._runs)))

    # inside

    def _machinery(self) -> tuple[Starts, Pool, PressureWatch | SampledWatch]:
        """Return what belongs to the running loop, made at the first use."""
        if self._made is None:
            starts = Starts(os.cpu_count() or 1, self._breaker)
            pool = Pool(self._pool_settings, self._begin_spare, lambda: starts.is_free)
            pool.is_sound = lambda recipe: starts.is_sound(self._kind_of(recipe, pool.world))
            starts.on_free = pool.unblocked
            least = self._pool_settings.min_free_bytes // _SHORT
            watch = self._watch_memory(self._pressed, least, lambda: bool(self._runs))
            self._made = starts, pool, watch
        return self._made

    def _start_of(self, spec: RunSpec, *, awaits_claim: bool = False) -> "_Start":
        executable = find_executable(self._executable, self._environment.get("PATH"))
        key = self._api_key()
        env = build_environment(self._environment, spec, self._api, with_key=key is not None)
        command = children.Command(
            argv=build_arguments(executable, spec, awaits_claim=awaits_claim),
            env=env,
            cwd=os.fspath(spec.cwd),
            secrets={KEY_VARIABLE: key.encode()} if key else {},
            open_files=self._open_files,
        )
        config = config_dir(env)
        return _Start(command, config, key, world_of(executable, config, key.encode() if key else None))

    def _recipes(self, spec: RunSpec, start: "_Start") -> tuple[Recipe, Recipe | None]:
        rehearsed = self._may_rehearse(spec, start)
        anyhow = early(spec)
        own = early(spec, rehearsed=rehearsed)
        recipe = Recipe(f"{self._key(own)}{'' if rehearsed else ' as it is'}", own, rehearsed=rehearsed)
        wanted = self._pool_settings.generic and self._unclaimable != start.world and may_be_anywhere(spec)
        if self._neutral_dir is None or not wanted:
            return recipe, None
        anywhere = replace(anyhow, cwd=Path(self._neutral_dir))
        return recipe, Recipe(self._key(anywhere, generic=True), anywhere, generic=True)

    def _key(self, spec: RunSpec, *, generic: bool = False) -> str:
        command = self._start_of(spec, awaits_claim=generic).command
        return key_of(command, build_initialize(spec), None if generic else command.cwd)

    async def _warm(self, spec: RunSpec, ask: AskPermission, recipes: list[Recipe]) -> ClaudeCodeRun | None:
        """Return a spare that fits, given to whoever asks; None if there is none that works."""
        _, pool, _ = self._machinery()
        while (spare := pool.take(*(recipe.key for recipe in recipes))) is not None:
            try:
                run = await asyncio.shield(spare.starting)
            except UpstreamError:
                continue
            except asyncio.CancelledError:
                pool.give_back(spare)
                raise
            claim = {"subtype": "claim_session", "cwd": os.fspath(spec.cwd)} if spare.recipe.generic else None
            try:
                await run.adopt(spec, ask, self._start_timeout_s, claim)
            except UpstreamError as error:
                if error.failure.category == "caller":
                    raise
                if claim is not None and "Unsupported" in error.failure.message:
                    self._unclaimable = self._start_of(spec).world
                continue
            pool.count("used")
            return run
        return None

    @staticmethod
    def _kind_of(recipe: Recipe, world: str | None) -> Kind:
        return Kind(f"{(world or '')[:16]} {recipe.key}", is_plain(recipe.spec))

    async def _begin(
        self, spec: RunSpec, ask: AskPermission, start: "_Start", kind: Kind
    ) -> ClaudeCodeRun:
        starts, _, watch = self._machinery()
        watch.begin()
        key = start.key
        access = None if key is None else await self._access(start.command.argv[0])
        command = start.command if access is None else through_gateway(start.command, access)
        run = ClaudeCodeRun(
            spec,
            ask,
            _record_of(spec, start.config_dir),
            Redactor([each for each in (key, access and access.token) if each]),
            self._gone,
            max_line_bytes=self._max_line_bytes,
            stall_s=self._stall_s,
            on_limits=self.on_limits,
        )
        run.api_access, run.kind = access, kind
        self._runs.add(run)
        try:
            await starts.start(
                kind, lambda: run.start(command, self._ledger, self._start_timeout_s, self._guard_command)
            )
        except BaseException:
            if access is not None:
                access.revoke()
            if run.pid is None:
                self._runs.discard(run)
            raise
        return run

    async def _begin_spare(self, recipe: Recipe) -> ClaudeCodeRun:
        spec = replace(recipe.spec, session_id=str(uuid.uuid4()))
        if recipe.generic:
            os.makedirs(spec.cwd, mode=0o700, exist_ok=True)
        start = self._start_of(spec, awaits_claim=recipe.generic)
        try:
            run = await self._begin(spec, _nobody, start, self._kind_of(recipe, start.world))
        except UpstreamError:
            if recipe.generic:
                self._unclaimable = start.world
            raise
        return await self._rehearsed(run, recipe, start) if recipe.rehearsed else run

    def _may_rehearse(self, spec: RunSpec, start: "_Start") -> bool:
        wanted = self._pool_settings.rehearse and self._unrehearsable != start.world
        return wanted and self.open_access is not None and start.key is not None and may_rehearse(spec)

    async def _rehearsed(self, run: ClaudeCodeRun, recipe: Recipe, start: "_Start") -> ClaudeCodeRun:
        """Return the spare once it has gone through a turn; raises `UpstreamError` if it cannot."""
        if run.api_access is None:
            return run
        try:
            if await rehearse(run, run.api_access):
                return run
        except BaseException:
            run.close_soon()
            raise
        self._unrehearsable = start.world
        self._machinery()[1].forget(recipe)
        await run.close()
        raise UpstreamError(Failure("protocol", "This Claude Code cannot take a turn back."))

    def _pressed(self) -> None:
        self._machinery()[1].drop("pressure")
        self._kept.drop()
        self.on_pressure()

    async def _access(self, executable: str) -> ApiAccess | None:
        if self.open_access is None:
            return None
        unix = await asyncio.to_thread(self._sockets.look, executable)
        return await self.open_access(unix=unix)

    def _gone(self, run: ClaudeCodeRun) -> None:
        """A run's process has ended: what it could do ends with it."""
        self._runs.discard(run)
        if run.api_access is not None:
            run.api_access.revoke()
        self._kept.lost(run)
        if self._made is not None and self._made[1].lost(run):
            self._made[0].crashed(run.kind)


@dataclass(frozen=True, slots=True)
class _Start:
    command: children.Command
    config_dir: str
    key: str | None
    world: str


async def _nobody(_ask: PermissionAsk) -> PermissionAnswer:
    return PermissionAnswer(allow=False, message="Nobody uses this process yet.")


def _record_of(spec: RunSpec, config: str) -> Transcript:
    """Return the record that the run writes. A fork's has to have what it was forked at."""
    if spec.fork:
        return Transcript(config, spec.session_id, spec.resume_holds)
    return Transcript(config, spec.resume or spec.session_id)


async def _check_record(spec: RunSpec, transcript: Transcript) -> None:
    """Raise `UpstreamError` (`mismatch`) if the conversation to resume has lost messages.

    One that is to be forked whole must not have gained any: which of them to take is not known.
    """
    if spec.resume is None:
        return
    found = await asyncio.to_thread(transcript.count)
    wanted = spec.resume_message_count
    if wanted is not None and found is not None and found < wanted:
        message = f"The conversation {spec.resume} has {found} messages; {wanted} were expected."
        raise UpstreamError(Failure("mismatch", message))
    if found is not None and not transcript.complete:
        message = f"The conversation {spec.resume} does not have the message {spec.resume_holds} any more."
        raise UpstreamError(Failure("mismatch", message))
    if spec.fork and spec.resume_holds is None and None not in (wanted, found) and found != wanted:
        message = f"The conversation {spec.resume} has gone on since its fork, and it is not known where."
        raise UpstreamError(Failure("mismatch", message))
