"""Which rule of a script answers a request."""

from __future__ import annotations

import re
from typing import NamedTuple

from dragoman_sim.conversation import Conversation
from dragoman_sim.faults import fault_of
from dragoman_sim.plan import Plan, is_constant
from dragoman_sim.script import Fault, Reply, Rule, Script, ScriptError, When

ECHO = Reply(content=["You said: {prompt}"])
"""The answer where no rule has one."""


class Choice(NamedTuple):
    """What answers a request."""

    reply: Reply
    fault: Fault | None
    match: re.Match[str] | None
    """Where the rule's regex was found."""
    rule: int | None
    cache: dict[int, Plan] | None
    """Where a plan that is the same for every request is kept, under `round`."""
    round: int


class _Prepared:
    """A rule with what has to be worked out once, and its counts."""

    def __init__(self, index: int, rule: Rule) -> None:
        self.index = index
        self.rule = rule
        self.when: When = rule.when
        self.fault = fault_of(rule.fault)
        if rule.when.path != "/v1/messages" and (rule.reply is not None or self.fault is None):
            raise ScriptError(f"Rule {index}: one for {rule.when.path} carries a fault and no reply")
        given = rule.reply if isinstance(rule.reply, list) else [ECHO if rule.reply is None else rule.reply]
        if not given:
            raise ScriptError(f"Rule {index}: a list of replies needs at least one")
        self.replies = [Reply(content=[reply]) if isinstance(reply, str) else reply for reply in given]
        self.constant = [is_constant(reply) for reply in self.replies]
        self.plans: dict[int, Plan] = {}
        try:
            self.regex = None if rule.when.regex is None else re.compile(rule.when.regex, re.DOTALL)
        except re.error as wrong:
            text = f"Rule {index}: {rule.when.regex!r} is no regular expression: {wrong}"
            raise ScriptError(text) from None
        self.seen = 0
        self.used = 0

    def choice(self, path: str, conversation: Conversation | None) -> Choice | None:
        """Return the choice if this rule answers; counts."""
        if path != self.when.path or self.used == self.rule.times:
            return None
        if conversation is not None and not self._fits(conversation):
            return None
        match = None
        if self.regex is not None:
            match = self.regex.search(conversation.prompt) if conversation is not None else None
            if match is None:
                return None
        self.seen += 1
        if self.when.nth not in (None, self.seen):
            return None
        self.used += 1
        at = 0
        if len(self.replies) > 1 and conversation is not None:
            at = min(conversation.round, len(self.replies) - 1)
        cache = self.plans if self.constant[at] else None
        return Choice(self.replies[at], self.fault, match, self.index, cache, at)

    def _fits(self, conversation: Conversation) -> bool:
        when = self.when
        return (
            (when.model is None or when.model in conversation.model)
            and (when.stream is None or when.stream == conversation.stream)
            and (when.text is None or when.text in conversation.prompt)
            and (when.first_text is None or when.first_text in conversation.first_prompt)
            and (when.tool_result is None or when.tool_result == bool(conversation.tool_results))
            and (when.tool is None or when.tool in conversation.tools)
            and (when.system is None or when.system in conversation.system)
        )


class Chooser:
    """The rules of one script, with their counts."""

    def __init__(self, script: Script) -> None:
        """Prepare *script*. Raises `ScriptError` for a rule that cannot work."""
        self._rules = [_Prepared(index, rule) for index, rule in enumerate(script.rules)]

    def choose(self, path: str, conversation: Conversation | None) -> Choice:
        """Return what answers: the first rule that fits and is not used up, else the echo."""
        for rule in self._rules:
            choice = rule.choice(path, conversation)
            if choice is not None:
                return choice
        return Choice(ECHO, None, None, None, None, 0)
