"""The upstream `claude_code`: Claude Code processes, each under a guard, in an environment of our choice."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence

from dragomand.process import children
from dragomand.process.ledger import Ledger
from dragomand.telemetry.redaction import Redactor
from dragomand.upstream.claude_code.command import (
    KEY_VARIABLE,
    ApiSettings,
    build_arguments,
    build_environment,
    through_gateway,
)
from dragomand.upstream.claude_code.executable import find_executable
from dragomand.upstream.claude_code.run import ClaudeCodeRun
from dragomand.upstream.claude_code.transcript import Transcript, config_dir
from dragomand.upstream.claude_code.unix_socket import UnixSocketSupport
from dragomand.upstream.claude_code.wire import MAX_LINE_BYTES
from dragomand.upstream.interface import (
    ApiAccess,
    AskPermission,
    Failure,
    OpenAccess,
    RunSpec,
    UpstreamError,
)


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
        open_files: int | None = None,
        guard_command: Sequence[str] = children.GUARD,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        """Start processes as these settings say; nothing is read from anywhere else.

        *environment* is where the allowed variables come from (`command.INHERITED`). *api_key* gives the
        key, or None for Claude Code's own login. *executable* None: the bundled one, else `claude` on the
        environment's PATH. *open_files* is the soft limit that processes get.
        """
        self._ledger = ledger
        self._environment = dict(environment)
        self._api_key = api_key
        self._executable = executable or None
        self._api = api or ApiSettings()
        self._start_timeout_s = start_timeout_s
        self._open_files = open_files
        self._guard_command = guard_command
        self._max_line_bytes = max_line_bytes
        self._runs: set[ClaudeCodeRun] = set()
        self._sockets = UnixSocketSupport()
        self.open_access: OpenAccess | None = None
        """Gives each run its access to the gateway; None, or no access: the key goes by file descriptor."""

    async def open(self, spec: RunSpec, ask: AskPermission) -> ClaudeCodeRun:
        """Start a run and wait until it is ready; see `Upstream.open`."""
        executable = find_executable(self._executable, self._environment.get("PATH"))
        key = self._api_key()
        env = build_environment(self._environment, spec, self._api, with_key=key is not None)
        transcript = Transcript(config_dir(env), spec.resume or spec.session_id)
        await _check_length(spec, transcript)
        access = None if key is None else await self._access(executable)
        redact = Redactor([each for each in (key, access and access.token) if each])
        run = ClaudeCodeRun(
            spec, ask, transcript, redact, self._gone, max_line_bytes=self._max_line_bytes
        )
        run.api_access = access
        command = children.Command(
            argv=build_arguments(executable, spec),
            env=env,
            cwd=os.fspath(spec.cwd),
            secrets={KEY_VARIABLE: key.encode()} if key else {},
            open_files=self._open_files,
        )
        if access is not None:
            command = through_gateway(command, access)
        self._runs.add(run)
        try:
            await run.start(command, self._ledger, self._start_timeout_s, self._guard_command)
        except BaseException as failed:
            if access is not None:
                access.revoke()
            if isinstance(failed, UpstreamError):
                self._runs.discard(run)
            raise
        return run

    async def close(self) -> None:
        """End every run that is still open, all at once."""
        await asyncio.gather(*(run.close() for run in list(self._runs)))

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


async def _check_length(spec: RunSpec, transcript: Transcript) -> None:
    """Raise `UpstreamError` (`mismatch`) if the conversation to resume has lost messages."""
    if spec.resume is None:
        return
    found = await asyncio.to_thread(transcript.count)
    wanted = spec.resume_message_count
    if wanted is not None and found is not None and found < wanted:
        message = f"The conversation {spec.resume} has {found} messages; {wanted} were expected."
        raise UpstreamError(Failure("mismatch", message))
