"""What a turn may choose, checked against what its client may do, and handed to the upstream."""

import hashlib
from collections.abc import Collection
from pathlib import Path

import msgspec
from dragoman_protocol.query import QueryRunParams, TurnOptions, Upstream

from dragomand.upstream.interface import RunSpec

from .caller import Caller
from .errors import EngineError

_NOT_PART = ("message_id", "timeout_ms", "queue_timeout_ms", "partial_result_token", "priority")
_encode = msgspec.json.Encoder(order="deterministic").encode


def check(options: TurnOptions, caller: Caller, allowed_env: Collection[str]) -> None:
    """Raise `scope_required` or `invalid_params` for what this client may not choose."""
    if options.permission_mode == "bypassPermissions" and "admin" not in caller.scopes:
        raise EngineError(
            "scope_required",
            "permissionMode `bypassPermissions` needs the scope `admin`; ask for it in `initialize`.",
            needed="admin",
            granted=sorted(caller.scopes),
        )
    for name in options.env or ():
        if name not in allowed_env:
            raise EngineError(
                "invalid_params",
                f"env.{name} is not allowed; the setting claude.allowedEnv lists what is: {', '.join(allowed_env)}.",
                path=f"$.env.{name}",
                reason="not allowed",
            )
    if options.max_turns is not None and options.max_turns < 1:
        raise EngineError(
            "invalid_params",
            f"maxTurns must be 1 or more; got {options.max_turns}.",
            path="$.maxTurns",
            reason="out of range",
        )


def check_upstream(upstream: Upstream) -> None:
    """Raise `upstream_unavailable` for a way to Claude that this version does not have."""
    if upstream == "messagesApi":
        raise EngineError(
            "upstream_unavailable",
            "The upstream `messagesApi` is not available in this version; leave `upstream` out or say `claudeCode`.",
            next_step="Leave `upstream` out.",
        )


def to_spec(options: TurnOptions, *, session_id: str, cwd: Path, resume: str | None) -> RunSpec:
    """Say how the upstream is to be started for these options."""
    return RunSpec(
        session_id=session_id,
        cwd=cwd,
        resume=resume,
        model=options.model,
        fallback_model=options.fallback_model,
        system_prompt=options.system_prompt,
        append_system_prompt=options.append_system_prompt,
        allowed_tools=_tuple(options.allowed_tools),
        disallowed_tools=_tuple(options.disallowed_tools),
        tools=_tuple(options.tools),
        permission_mode=options.permission_mode,
        max_turns=options.max_turns,
        env=dict(options.env or {}),
    )


def digest(params: QueryRunParams) -> str:
    """Return what tells two submissions with one `messageId` apart: a hash of everything that is asked.

    How long to wait and where to report to are not part of it.
    """
    asked = {name: getattr(params, name) for name in params.__struct_fields__ if name not in _NOT_PART}
    return hashlib.sha256(_encode(asked)).hexdigest()


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
