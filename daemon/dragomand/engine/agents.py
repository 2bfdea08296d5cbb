"""The library of agents: presets that are shipped, and the user's own files; and who answers a turn."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio.to_thread
import msgspec
from dragoman_protocol.agent import (
    AgentDefinition,
    AgentGetResult,
    AgentInfo,
    AgentListResult,
    AgentProblem,
    AgentSource,
)
from dragoman_protocol.query import TurnOptions

from .agent_files import MAX_FILES, AgentFileError, read
from .errors import EngineError

Options = TypeVar("Options", bound=TurnOptions)


@dataclass(frozen=True, slots=True)
class _Agent:
    info: AgentInfo
    definition: AgentDefinition


_Library = tuple[dict[str, _Agent], list[AgentProblem]]
"""Agents by name, and the files that are none."""


class Agents:
    """Reads agents when they are asked for, so that a file that was just saved counts."""

    def __init__(self, presets: Path, folder: Path) -> None:
        """Take presets from *presets*, one folder a group, the user's own from *folder* if there is one."""
        self._presets = presets
        self._folder = folder
        self._shipped: Mapping[str, _Agent] | None = None

    async def list(self, group: str | None = None) -> AgentListResult:
        """Return all agents, or those of one group, and what is wrong with the user's files."""
        known, problems = await self._read()
        chosen = [agent.info for agent in known.values() if group is None or agent.info.group == group]
        chosen.sort(key=lambda info: (info.source != "preset", info.name))
        return AgentListResult(data=chosen, problems=problems, folder=str(self._folder))

    async def get(self, name: str) -> AgentGetResult:
        """Return one agent; raises `EngineError` `agent_not_found`."""
        known, problems = await self._read()
        if name not in known:
            raise _unknown(name, list(known), problems)
        return AgentGetResult(agent=known[name].info, definition=known[name].definition)

    async def answering(self, options: Options) -> Options:
        """Return *options* with the agent that is to answer put in.

        It is in `agents` then, and what it says of model, rounds, effort, permissions and tools never used
        holds unless the turn chose otherwise. Raises `EngineError` `agent_not_found`.
        """
        name = options.agent
        if not name:
            return options
        given = options.agents or {}
        agent = given[name] if name in given else (await self._find(name, given)).definition
        never = [*(options.disallowed_tools or ()), *(agent.disallowed_tools or ())]
        return msgspec.structs.replace(
            options,
            agents={**given, name: agent},
            model=options.model or _model(agent),
            max_turns=agent.max_turns if options.max_turns is None else options.max_turns,
            effort=options.effort or agent.effort,
            permission_mode=options.permission_mode or agent.permission_mode,
            disallowed_tools=never or options.disallowed_tools,
        )

    async def _find(self, name: str, also: Iterable[str]) -> _Agent:
        known, problems = await self._read()
        if name not in known:
            raise _unknown(name, [*known, *also], problems)
        return known[name]

    async def _read(self) -> _Library:
        """Return everything by name, the user's own instead of presets of the same name."""
        if self._shipped is None:
            self._shipped = await anyio.to_thread.run_sync(_presets, self._presets)
        own, problems = await anyio.to_thread.run_sync(partial(_folder, self._folder, source="user"))
        return {**self._shipped, **own}, problems


def _model(agent: AgentDefinition) -> str | None:
    return None if agent.model == "inherit" else agent.model


def _presets(folder: Path) -> dict[str, _Agent]:
    found: dict[str, _Agent] = {}
    for group in sorted(each for each in folder.iterdir() if each.is_dir()):
        agents, problems = _folder(group, source="preset", group=group.name)
        if problems:
            raise AgentFileError(f"{problems[0].path}: {problems[0].reason}")
        found |= agents
    return found


def _folder(folder: Path, *, source: AgentSource, group: str | None = None) -> _Library:
    """Read the agents of one folder in the order of the files' names; of two of one name the later counts."""
    agents: dict[str, _Agent] = {}
    problems: list[AgentProblem] = []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".md")
    except FileNotFoundError:
        return {}, []
    except OSError as failed:
        return {}, [AgentProblem(path=str(folder), reason=f"it cannot be read: {failed.strerror}")]
    if len(paths) > MAX_FILES:
        reason = f"it has {len(paths)} agents; the first {MAX_FILES} are read"
        problems.append(AgentProblem(path=str(folder), reason=reason))
    for path in paths[:MAX_FILES]:
        try:
            name, definition = read(path)
        except AgentFileError as wrong:
            problems.append(AgentProblem(path=str(path), reason=str(wrong)))
            continue
        info = AgentInfo(
            name=name,
            description=definition.description,
            source=source,
            group=group,
            model=definition.model,
            tools=definition.tools,
            path=str(path) if source == "user" else None,
        )
        agents[name] = _Agent(info, definition)
    return agents, problems


def _unknown(name: str, known: list[str], problems: list[AgentProblem]) -> EngineError:
    nearest = next(iter(difflib.get_close_matches(name, known, 1)), None)
    hint = f" Did you mean `{nearest}`?" if nearest else " `agent/list` lists those there are."
    if any(Path(problem.path).stem == name for problem in problems):
        hint = " There is a file of that name that cannot be used; `agent/list` says why."
    text = f"There is no agent `{name[:100]}`.{hint}"
    return EngineError("agent_not_found", text, agent=name[:100], nearest=nearest)
