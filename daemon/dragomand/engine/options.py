"""What a turn may choose, checked against what its client may do, and handed to the upstream."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
from dragoman_protocol.agent import to_claude_code
from dragoman_protocol.query import AnswerOptions, QueryRunParams, TurnOptions

from dragomand.store.rows import SessionRow
from dragomand.upstream.interface import AdmitCall, HistoryMessage, RunSpec

from .caller import Caller
from .errors import EngineError
from .option_rules import at_least, check_values, needs

_NOT_PART = ("message_id", "timeout_ms", "queue_timeout_ms", "partial_result_token", "priority")
_CHOSEN = attrgetter(*(name for name in TurnOptions.__struct_fields__ if name != "model"))
_NOTHING = _CHOSEN(TurnOptions())
_NOWHERE = Path("/")
_encode = msgspec.json.Encoder(order="deterministic").encode


def check(
    options: TurnOptions, caller: Caller, allowed_env: Collection[str], roots: Sequence[str] = ()
) -> None:
    """Raise `scope_required` or `invalid_params` for what this client may not choose.

    More folders must lie in *roots*, like working directories (none: anywhere).
    """
    if nothing_chosen(options) and (options.model is None or "\0" not in options.model):
        return
    for scope, what in needs(options):
        _need(caller, scope, what)
    for name, value in (options.env or {}).items():
        if name not in allowed_env:
            listed = ", ".join(allowed_env)
            text = f"env.{name} is not allowed; the setting claude.allowedEnv lists what is: {listed}."
            raise EngineError("invalid_params", text, path=f"$.env.{name}", reason="not allowed")
        _no_nul(f"env.{name}", value)
    for path, value in _arguments(options):
        _no_nul(path, value)
    check_values(options, roots)


def nothing_chosen(options: TurnOptions) -> bool:
    """Tell whether nothing but the model was chosen, as with most plain questions: a quick answer."""
    return bool(_CHOSEN(options) == _NOTHING)


def check_times(params: QueryRunParams) -> None:
    """Raise `invalid_params` for spans that are none: `timeoutMs` from 1, `queueTimeoutMs` from 0."""
    at_least("timeoutMs", 1, params.timeout_ms)
    at_least("queueTimeoutMs", 0, params.queue_timeout_ms)


def to_spec(
    options: TurnOptions,
    caller: Caller,
    session: SessionRow,
    *,
    resume: str | None,
    instruction: str | None = None,
) -> RunSpec:
    """Say how the upstream is to be started for these options. Without the scope `tools` there are none.

    *instruction* is added to the system prompt.
    """
    tools = _tuple(options.tools) if "tools" in caller.scopes else ()
    prompt = options.system_prompt
    preset = None if prompt is None or isinstance(prompt, str) else prompt
    added = options.append_system_prompt
    if preset is not None:
        added = preset.append or added
    return RunSpec(
        session_id=session.session_id,
        cwd=Path(session.cwd or "/"),
        resume=resume,
        resume_message_count=session.claude_message_count if resume else None,
        model=options.model,
        fallback_model=_joined(options.fallback_model),
        agent=options.agent,
        agents=_agents(options, able="tools" in caller.scopes),
        system_prompt=prompt if isinstance(prompt, str) else None,
        append_system_prompt=_both(added, instruction),
        exclude_dynamic_sections=bool(preset and preset.exclude_dynamic_sections),
        allowed_tools=_allowed(options),
        disallowed_tools=_tuple(options.disallowed_tools),
        tools=tools,
        permission_mode=options.permission_mode,
        max_turns=options.max_turns,
        max_budget_usd=options.max_budget_usd,
        task_budget_tokens=options.task_budget_tokens,
        thinking=options.thinking,
        effort=options.effort,
        mcp_servers=msgspec.to_builtins(options.mcp_servers or {}),
        add_dirs=tuple(Path(os.path.realpath(folder)) for folder in options.add_dirs or ()),
        skills=None if options.skills in (None, "all") else tuple(options.skills or ()),
        settings=_settings(options),
        setting_sources=_tuple(options.setting_sources),
        plugins=tuple(options.plugins or ()),
        betas=tuple(options.betas or ()),
        file_checkpointing=bool(options.file_checkpointing),
        hook_events=bool(options.hook_events),
        verbatim_prompt=bool(options.verbatim_prompt),
        env=dict(options.env or {}),
        client=caller.id,
    )  # fmt: skip


def to_direct_spec(
    options: AnswerOptions,
    session: SessionRow,
    *,
    instruction: str | None,
    history: tuple[HistoryMessage, ...],
    deltas_wanted: Callable[[], bool],
    admit_call: AdmitCall | None,
) -> RunSpec:
    """Say the same for the Messages API, which has few of these options; the others were refused."""
    prompt = options.system_prompt
    return RunSpec(
        session_id=session.session_id,
        cwd=_NOWHERE,
        model=options.model,
        system_prompt=prompt if isinstance(prompt, str) else None,
        append_system_prompt=_both(options.append_system_prompt, instruction),
        max_turns=options.max_turns,
        thinking=options.thinking,
        api=options.api,
        output_schema=options.output_schema,
        history=history,
        deltas_wanted=deltas_wanted,
        admit_call=admit_call,
    )


def digest(params: QueryRunParams) -> str:
    """Return what tells two submissions with one `messageId` apart: a hash of everything that is asked.

    How long to wait and where to report to are not part of it. Nor is what was not chosen, so that an option
    of a newer version changes no digest of an older one.
    """
    fields = {name: getattr(params, name) for name in params.__struct_fields__ if name not in _NOT_PART}
    asked = {name: value for name, value in fields.items() if value is not None}
    return hashlib.sha256(_encode(asked)).hexdigest()


def _arguments(options: TurnOptions) -> Iterator[tuple[str, str]]:
    """Each text that becomes an argument of a command line, with its path."""
    single = {"model": options.model, "agent": options.agent}
    yield from ((path, value) for path, value in single.items() if value is not None)
    fallback = options.fallback_model
    if isinstance(fallback, str):
        yield "fallbackModel", fallback
        fallback = None
    several = {
        "fallbackModel": fallback,
        "betas": options.betas,
        "addDirs": options.add_dirs,
        "plugins": options.plugins,
        "skills": None if options.skills == "all" else options.skills,
        "tools": options.tools,
        "allowedTools": options.allowed_tools,
        "disallowedTools": options.disallowed_tools,
    }
    for path, values in several.items():
        yield from ((f"{path}[{at}]", value) for at, value in enumerate(values or ()))


def _need(caller: Caller, scope: str, what: str) -> None:
    if scope not in caller.scopes:
        raise EngineError(
            "scope_required",
            f"Using {what} needs the scope `{scope}`; ask for it in `initialize`.",
            needed=scope,
            granted=sorted(caller.scopes),
        )


def _no_nul(path: str, value: str) -> None:
    if "\0" in value:
        text = f"{path} must not contain a NUL character."
        raise EngineError("invalid_params", text, path=f"$.{path}", reason="contains NUL")


def _tuple(values: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _both(first: str | None, second: str | None) -> str | None:
    return "\n\n".join(text for text in (first, second) if text) or first


def _joined(names: str | list[str] | None) -> str | None:
    return names if names is None or isinstance(names, str) else ",".join(names) or None


def _allowed(options: TurnOptions) -> tuple[str, ...] | None:
    """The tools that run without asking; a skill that was chosen is used without asking."""
    if not options.skills:
        return _tuple(options.allowed_tools)
    skills = ["Skill"] if options.skills == "all" else [f"Skill({name})" for name in options.skills]
    return (*(options.allowed_tools or ()), *skills)


def _agents(options: TurnOptions, *, able: bool) -> dict[str, dict[str, Any]]:
    """The agents as the upstream takes them. None has a built-in tool that the turn does not have.

    Claude Code itself does not see to that: an agent that answers brings some of those it names along. What
    was taken from the one who answers into the turn's own options is left out here. *able*: tools may run.
    """
    found = {name: to_claude_code(agent) for name, agent in (options.agents or {}).items()}
    for name, agent in found.items():
        if not able:
            agent["tools"] = []
        elif options.tools is not None and "tools" in agent:
            agent["tools"] = [tool for tool in agent["tools"] if _exists(tool, options.tools)]
        if name == options.agent:
            for taken in ("maxTurns", "effort", "permissionMode", "disallowedTools", "background"):
                agent.pop(taken, None)
    return found


def _exists(tool: str, built_in: list[str]) -> bool:
    """Whether a tool, which may be named with a rule, is one of these or comes from a server."""
    return tool.partition("(")[0] in built_in or tool.startswith("mcp__")


def _settings(options: TurnOptions) -> dict[str, Any] | None:
    """The settings of the turn; `sandbox` is one of them."""
    if options.sandbox is None:
        return options.settings
    return {**(options.settings or {}), "sandbox": options.sandbox}
