"""Which upstream answers a query, and why: said in the result, so that nobody has to guess."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import msgspec
from dragoman_protocol.auth import Provider
from dragoman_protocol.query import AnsweredBy, AnswerOptions, TurnOptions

from .errors import EngineError

UpstreamName = Literal["claude_code", "messages_api"]
"""As it is stored."""

WIRE: dict[str, AnsweredBy] = {"claude_code": "claudeCode", "messages_api": "messagesApi"}
"""As it travels."""

_OF_BOTH = {"model", "system_prompt", "thinking", "tools", "max_turns"}
_ONLY_CLAUDE_CODE = {
    field.name: field.encode_name
    for field in msgspec.structs.fields(TurnOptions)
    if field.name not in _OF_BOTH
}
"""Every other option of a turn, so that a new one is never ignored without a word."""

_chosen = attrgetter(*_ONLY_CLAUDE_CODE)

NAMES: dict[Provider, str] = {
    "anthropic": "Anthropic",
    "bedrock": "Amazon Bedrock",
    "vertex": "Google Vertex AI",
}
"""For people."""

NO_KEY = "messagesApi needs an API key: a login of Claude Code's own is never used for direct calls"
"""Why there is no Messages API with a subscription."""

KEY_STEP = "Set ANTHROPIC_API_KEY where the daemon is started, or leave it out."
"""What to do about it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who answers."""

    upstream: UpstreamName
    reason: str

    @property
    def wire(self) -> AnsweredBy:
        """The name that travels."""
        return WIRE[self.upstream]


def choose(
    options: AnswerOptions,
    *,
    cwd: str | None,
    bound: str | None,
    has_key: bool,
    provider: Provider = "anthropic",
    refusal: Callable[[], EngineError | None] = lambda: None,
    missing: str | None = None,
) -> Choice:
    """Return who answers *options*.

    *cwd* is the query's folder, or the stored session's; *bound* the upstream that the session's turns so far
    had, None for a new one; *has_key* whether *provider*'s Messages API can be asked, *missing* what a cloud
    lacks for that; *refusal* says why Claude Code cannot. Raises that, `upstream_unavailable` where the one
    that is needed cannot be had, `invalid_params` for options that it does not have.
    """
    why_not = NO_KEY if missing is None else f"{NAMES[provider]} cannot be asked: its library is missing"
    choice = _choose(options, cwd, bound, None if has_key else why_not)
    if choice.upstream == "messages_api":
        if not has_key:
            raise unavailable(why_not, missing or KEY_STEP)
        agentic = _agentic(options)
        if agentic:
            raise _not_of(agentic, "messagesApi")
        if provider != "anthropic":
            return Choice("messages_api", f"{choice.reason}; by way of {NAMES[provider]}")
        return choice
    if options.api is not None:
        raise _not_of("api", "claudeCode")
    refused = refusal()
    if refused is not None:
        raise refused
    return choice


def unavailable(why: str, next_step: str) -> EngineError:
    """Return the error `upstream_unavailable`."""
    return EngineError("upstream_unavailable", f"{why}.", next_step=next_step)


def _choose(options: AnswerOptions, cwd: str | None, bound: str | None, why_not: str | None) -> Choice:
    asked: UpstreamName | None = None
    if options.upstream != "auto":
        asked = "messages_api" if options.upstream == "messagesApi" else "claude_code"
    if bound in ("claude_code", "messages_api"):
        kept: UpstreamName = "messages_api" if bound == "messages_api" else "claude_code"
        if asked not in (None, kept):
            raise unavailable(
                f"This session is answered by {WIRE[kept]}, which alone knows all of it",
                f"Leave `upstream` out, or start a new session for {options.upstream}.",
            )
        return Choice(kept, f"the session was begun with {WIRE[kept]}")
    if asked is not None:
        return Choice(asked, "asked for")
    if options.tools is None or options.tools:
        return Choice("claude_code", "tools may be used (`tools` is not [])")
    if cwd is not None:
        return Choice("claude_code", "a working directory was given")
    agentic = _agentic(options)
    if agentic:
        return Choice("claude_code", f"{agentic} is an option of Claude Code's")
    if why_not is not None:
        return Choice("claude_code", why_not)
    return Choice("messages_api", "no tools, no folder, and no option of Claude Code's were asked for")


def _agentic(options: AnswerOptions) -> str | None:
    """Return the first option that the Messages API does not have, as it travels."""
    if options.tools:
        return "tools"
    if options.system_prompt is not None and not isinstance(options.system_prompt, str):
        return "systemPrompt.preset"
    if any(_chosen(options)):
        return next(wire for name, wire in _ONLY_CLAUDE_CODE.items() if getattr(options, name))
    return None


def _not_of(option: str, upstream: AnsweredBy) -> EngineError:
    other = "claudeCode" if upstream == "messagesApi" else "messagesApi"
    text = f"{option} is not an option of {upstream}, which answers here; leave it out, or ask {other}."
    return EngineError("invalid_params", text, path=f"$.{option}", reason=f"not an option of {upstream}")
