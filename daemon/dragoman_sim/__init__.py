"""A loopback server that speaks the Messages API, with faults: for the demo, the tests and load.

In a test::

    from dragoman_sim import Cut, Gate, Reply, Rule, Simulator, ToolUse, When

    rules = [
        Rule(When(text="weather"), "Sunny."),                       # a string is a reply of that text
        Rule(When(text="slowly"), Reply(["one ", Gate("half"), "two"])),
        Rule(When(text="edit"), [                                   # a list is one turn, tool by tool
            Reply([ToolUse("Write", {"file_path": "{cwd}/a.txt", "content": "hi"})]),
            "It is written.",
        ]),
        Rule(When(text="who"), "You said first: {first_prompt}"),   # proves that a session was resumed
        Rule(When(text="busy"), fault="overloaded", times=2),       # names: `faults.NAMED`
        Rule(When(text="snap"), "Half of this arrives.", fault=Cut("inside_block", reset=True)),
    ]
    async with Simulator(rules) as sim:
        env = {"ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": KEY, …}
        …
        await sim.gate("half").wait_arrived()     # the reply has come to the gate: its first half is sent
        await sim.gate("half").open()             # no sleeping
        record = await sim.wait_for(1)            # the first request to /v1/messages; or a condition
        assert record.from_claude_code            # the real CLI asked
        assert record.used_key(KEY)               # keys themselves are not kept
        assert await sim.wait_ended(record) == "answered"   # or "abandoned": the client went away

A request that no rule matches is answered "You said: <prompt>". The first rule that matches and is not used
up (`times`) answers. What a rule can say is in `dragoman_sim.script`; the words in braces are in
`dragoman_sim.template`. A prompt is the person's last text, without what Claude Code adds to it. With
`ToolUse` in a reply the real CLI runs the real tool, with its permissions; `{tool_result}` in the next reply
shows what came of it. A test without asyncio, or one whose simulator is shared, uses
`dragoman_sim.remote.in_process`.

`Script(limits=Limits(…))` gives it limits of its own, per credential: rates, a subscription's windows, a
spend cap; what they let in and refused is in `sim.limit_counts()`.

As a process: `dragoman sim --script FILE` (or `python -m dragoman_sim`), with the same script as JSON, e.g.
``[{"when": {"text": "slowly"}, "reply": {"content": ["one ", {"type": "gate", "name": "half"}, "two"]}}]``;
`dragoman_sim.control` lists the endpoints under `/_sim/` that do there what the methods above do here.
"""

from dragoman_sim.gates import GateControl
from dragoman_sim.records import Record
from dragoman_sim.script import (
    Cut,
    Gate,
    Limits,
    Malformed,
    Pause,
    Ping,
    Pings,
    Reply,
    Rule,
    Script,
    ScriptError,
    Stall,
    Status,
    StreamError,
    Thinking,
    Tokens,
    ToolUse,
    When,
    Window,
    load_script,
    read_script,
)
from dragoman_sim.simulator import Simulator

__all__ = [
    "Cut",
    "Gate",
    "GateControl",
    "Limits",
    "Malformed",
    "Pause",
    "Ping",
    "Pings",
    "Record",
    "Reply",
    "Rule",
    "Script",
    "ScriptError",
    "Simulator",
    "Stall",
    "Status",
    "StreamError",
    "Thinking",
    "Tokens",
    "ToolUse",
    "When",
    "Window",
    "load_script",
    "read_script",
]
