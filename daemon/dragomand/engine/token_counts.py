"""`query/countTokens`: what a prompt would take, by the provider's own count."""

from pathlib import Path
from typing import Protocol

from dragoman_protocol.content import Prompt
from dragoman_protocol.query import CountTokensParams, CountTokensResult

from dragomand.upstream.interface import HistoryMessage, RunSpec, UpstreamError

from .auth import Auth
from .errors import from_failure
from .history import load_history
from .inheritance import Inheritance, inherited
from .sessions import Sessions, storage_errors
from .upstream_choice import NO_KEY, unavailable


class Counter(Protocol):
    """Who can count."""

    async def count_tokens(self, spec: RunSpec, prompt: Prompt) -> tuple[int, str]:
        """Return the tokens and the model they were counted for; raises `UpstreamError`."""


class TokenCounts:
    """Counts tokens."""

    def __init__(self, counter: Counter, auth: Auth, sessions: Sessions) -> None:
        """Let *counter* count, with the key of *auth*; sessions are looked up in *sessions*."""
        self._counter = counter
        self._auth = auth
        self._sessions = sessions

    async def count(self, params: CountTokensParams) -> CountTokensResult:
        """Return the count. Raises `EngineError`: `upstream_unavailable` without an API key …"""
        self._auth.require()
        if not self._auth.can_ask_directly:
            missing = self._auth.no_direct_answer
            if missing is not None:
                raise unavailable("The cloud cannot be asked: its library is missing", missing)
            raise unavailable(NO_KEY, "Set ANTHROPIC_API_KEY where the daemon is started.")
        history: tuple[HistoryMessage, ...] = ()
        before = Inheritance()
        if params.session_id is not None:
            await self._sessions.load(params.session_id)
            with storage_errors():
                history = await load_history(self._sessions.store, params.session_id)
            before = await inherited(self._sessions.store, params.session_id)
        spec = RunSpec(
            session_id=params.session_id or "",
            cwd=Path("/"),
            model=params.model or before.model,
            system_prompt=before.system_prompt if params.system_prompt is None else params.system_prompt,
            history=history,
        )
        try:
            tokens, model = await self._counter.count_tokens(spec, params.prompt)
        except UpstreamError as error:
            raise from_failure(error.failure) from error
        return CountTokensResult(input_tokens=tokens, model=model)
