"""What a turn inherits from the ones before in its session: who answers.

The agent, the model and the system prompt say who the client talks to, so they hold until others are named.
Everything else is of one turn: what lets tools run, forbids them or spends money is said anew by whoever asks
for it, and nobody gets it because somebody else had it. Naming an agent, or none any more (`""`), begins
anew: what was named before it, is not inherited.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import msgspec
from dragoman_protocol.agent import AgentDefinition
from dragoman_protocol.query import SystemPromptPreset, TurnOptions

from dragomand.store.store import Store

from . import options as option_checks
from .agents import Agents
from .caller import Caller
from .sessions import storage_errors

Options = TypeVar("Options", bound=TurnOptions)


class Inheritance(msgspec.Struct, omit_defaults=True, frozen=True):
    """Who answers in a session. The names are the database's."""

    agent: str | None = None
    definition: dict[str, Any] | None = None
    """The agent's, if it came with a request and is in no library."""
    model: str | None = None
    system_prompt: str | None = None
    preset: dict[str, Any] | None = None
    """Claude Code's own prompt, with what is added or left out."""
    append_system_prompt: str | None = None

    def after(self, named: TurnOptions) -> "Inheritance":
        """Return what is inherited after a turn with these options, as they were asked for."""
        before = self if named.agent is None else Inheritance()
        agent = before.agent if named.agent is None else named.agent or None
        own = (named.agents or {}).get(named.agent) if named.agent else None
        definition = before.definition if named.agent is None else _stored(own)
        prompt = named.system_prompt
        if prompt is None:
            text, preset = before.system_prompt, before.preset
        elif isinstance(prompt, str):
            text, preset = prompt, None
        else:
            text, preset = None, _stored(prompt)
        append = named.append_system_prompt
        return Inheritance(
            agent=agent,
            definition=definition,
            model=before.model if named.model is None else named.model or None,
            system_prompt=text,
            preset=preset,
            append_system_prompt=before.append_system_prompt if append is None else append or None,
        )

    def given_to(self, options: Options) -> Options:
        """Return *options* with what they do not name themselves."""
        agents = options.agents
        if self.agent is not None and self.definition is not None and self.agent not in (agents or {}):
            agents = {**(agents or {}), self.agent: _known(AgentDefinition, self.definition)}
        preset = None if self.preset is None else _known(SystemPromptPreset, self.preset)
        return msgspec.structs.replace(
            options,
            agent=self.agent,
            agents=agents,
            model=self.model,
            system_prompt=preset if self.system_prompt is None else self.system_prompt,
            append_system_prompt=self.append_system_prompt,
        )

    def stored(self) -> bytes | None:
        """Return what is written down; None for nothing."""
        return None if self == Inheritance() else msgspec.json.encode(self)


class Inheriting:
    """Completes what a request names by what its session has."""

    def __init__(
        self, store: Store, agents: Agents, *, allowed_env: Collection[str], roots: Sequence[str]
    ) -> None:
        """Read what sessions have from *store*, and the agents that they name from *agents*."""
        self._store = store
        self._agents = agents
        self._allowed_env = allowed_env
        self._roots = roots

    async def whole(
        self, named: Options, caller: Caller, session_id: str | None
    ) -> tuple[Options, Inheritance | None]:
        """Return the options of a turn, and what the next one inherits; None: the same as this one.

        *session_id* is the session that goes on, or that is forked; None: a new one. What is inherited has to
        be allowed to *caller* as if it were asked for. Raises `agent_not_found`, `scope_required` …
        """
        before = Inheritance() if session_id is None else await inherited(self._store, session_id)
        after = before.after(named)
        completed = await self._agents.answering(after.given_to(named))
        option_checks.check(completed, caller, self._allowed_env, self._roots)
        return completed, None if after == before else after


async def inherited(store: Store, session_id: str) -> Inheritance:
    """Return what the turns of a session inherit."""
    with storage_errors():
        kept = await store.kept(session_id)
    return Inheritance() if kept is None else msgspec.json.decode(kept, type=Inheritance)


def _stored(value: msgspec.Struct | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {name: each for name, each in msgspec.structs.asdict(value).items() if each is not None}


T = TypeVar("T", bound=msgspec.Struct)


def _known(kind: Callable[..., T], stored: dict[str, Any]) -> T:
    """Make a value again; what a newer version had stored of it is left out."""
    names = kind.__struct_fields__  # type: ignore[attr-defined]
    return kind(**{name: each for name, each in stored.items() if name in names})
