"""What a turn may choose, checked against what its client may do, and handed to the upstream."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec
from dragoman_protocol.query import QueryRunParams, TurnOptions

from dragomand.store.rows import SessionRow
from dragomand.upstream.interface import RunSpec

from .caller import Caller
from .errors import EngineError

_NOT_PART = ("message_id", "timeout_ms", "queue_timeout_ms", "partial_result_token", "priority")
_encode = msgspec.json.Encoder(order="deterministic").encode


def check(options: TurnOptions, caller: Caller, allowed_env: Collection[str]) -> None:
    """Raise `scope_required` or `invalid_params` for what this client may not choose."""
    if options.permission_mode == "bypassPermissions":
        _need(caller, "admin", "permissionMode `bypassPermissions`")
    if options.tools or options.allowed_tools:
        _need(caller, "tools", "running tools")
    for name, value in (options.env or {}).items():
        if name not in allowed_env:
            listed = ", ".join(allowed_env)
            text = f"env.{name} is not allowed; the setting claude.allowedEnv lists what is: {listed}."
            raise EngineError("invalid_params", text, path=f"$.env.{name}", reason="not allowed")
        _no_nul(f"env.{name}", value)
    for path, value in _arguments(options):
        _no_nul(path, value)
    if options.max_turns is not None and options.max_turns < 1:
        raise _out_of_range("maxTurns", 1, options.max_turns)


def check_times(params: QueryRunParams) -> None:
    """Raise `invalid_params` for spans that are none: `timeoutMs` from 1, `queueTimeoutMs` from 0."""
    if params.timeout_ms is not None and params.timeout_ms < 1:
        raise _out_of_range("timeoutMs", 1, params.timeout_ms)
    if params.queue_timeout_ms is not None and params.queue_timeout_ms < 0:
        raise _out_of_range("queueTimeoutMs", 0, params.queue_timeout_ms)


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
    return RunSpec(
        session_id=session.session_id,
        cwd=Path(session.cwd or "/"),
        resume=resume,
        resume_message_count=session.claude_message_count if resume else None,
        model=options.model,
        fallback_model=options.fallback_model,
        system_prompt=options.system_prompt,
        append_system_prompt=_both(options.append_system_prompt, instruction),
        allowed_tools=_tuple(options.allowed_tools),
        disallowed_tools=_tuple(options.disallowed_tools),
        tools=_tuple(options.tools) if "tools" in caller.scopes else (),
        permission_mode=options.permission_mode,
        max_turns=options.max_turns,
        env=dict(options.env or {}),
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
    single = {"model": options.model, "fallbackModel": options.fallback_model}
    yield from ((path, value) for path, value in single.items() if value is not None)
    several = {
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


def _out_of_range(name: str, least: int, value: int) -> EngineError:
    text = f"{name} must be {least} or more; got {value}."
    return EngineError("invalid_params", text, path=f"$.{name}", reason="out of range")


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _both(first: str | None, second: str | None) -> str | None:
    return "\n\n".join(text for text in (first, second) if text) or first
