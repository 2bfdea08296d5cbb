"""What a query may be asked with: the keyword arguments of `query` and `stream`, in every client."""

import os
from typing import Any, TypedDict

from dragoman_protocol.content import Prompt
from dragoman_protocol.query import ApiOptions, PermissionMode, Priority, QueryRunParams, Upstream

LONGEST_S = 1e9
"""The longest span, in seconds, that may be given: thirty years. (An infinite one is said by giving none.)"""


class QueryOptions(TypedDict, total=False):
    """Every key may be left out; the comments say what happens then.

    The fields of `query/run` (see `dragoman_protocol.query.QueryRunParams`) with two changes for Python:
    spans are in seconds, and `cwd` may be any path.
    """

    cwd: str | os.PathLike[str] | None  # the process's own; a continued session's; None: none
    session_id: str  # a new session
    message_id: str  # submitting the same id twice runs it once
    upstream: Upstream  # "auto"; "messagesApi" needs no cwd
    api: ApiOptions  # what only the Messages API understands
    output_schema: dict[str, Any]  # a JSON Schema that the answer has to fit; `output` makes it of a type
    output_attempts: int  # 3
    priority: Priority  # "interactive"
    timeout_s: float  # the daemon's `query.timeoutMs` (600 s); waiting for a permission counts not
    queue_timeout_s: float  # the daemon's `limits.queueTimeoutMs` (60 s)
    title: str  # the first line of the prompt
    tags: list[str]
    model: str  # Claude Code's own default; an alias (`opus`, `sonnet`, `haiku`) or a full name
    fallback_model: str
    system_prompt: str
    append_system_prompt: str
    allowed_tools: list[str]  # run without asking, in Claude Code's syntax: `Read`, `Bash(git *)`
    disallowed_tools: list[str]
    tools: list[str]  # the built-in tools that exist at all
    permission_mode: PermissionMode
    max_turns: int
    env: dict[str, str]


def query_params(prompt: Prompt, options: QueryOptions, token: int | None = None) -> QueryRunParams:
    """Put the parameters of `query/run` together; *token* asks for the turn's events.

    An unknown option is a `TypeError`, as for any function; a span that is no number of seconds, infinite
    for instance, a `ValueError`.
    """
    fields: dict[str, object] = dict(options)
    for seconds, milliseconds in (("timeout_s", "timeout_ms"), ("queue_timeout_s", "queue_timeout_ms")):
        span = fields.pop(seconds, None)
        if span is not None:
            fields[milliseconds] = _milliseconds(seconds, float(str(span)))
    cwd = options.get("cwd")
    if cwd is not None:
        fields["cwd"] = os.path.abspath(cwd)
    elif "cwd" not in options and not options.get("session_id") and options.get("upstream") != "messagesApi":
        fields["cwd"] = os.getcwd()
    return QueryRunParams(prompt=prompt, partial_result_token=token, **fields)  # type: ignore[arg-type]


def _milliseconds(name: str, seconds: float) -> int:
    if not -LONGEST_S <= seconds <= LONGEST_S:
        raise ValueError(f"{name} must be a number of seconds up to {LONGEST_S:.0f}, got {seconds}")
    return max(1, round(seconds * 1000))
