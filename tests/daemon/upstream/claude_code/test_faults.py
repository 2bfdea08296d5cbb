"""What the API does wrong, seen through the real CLI; `upstream/faults` has the table of every fault."""

from dragoman_protocol.stream import Retrying, TextDelta
from dragoman_sim import Malformed, Reply, Rule, Status, ToolUse, When


async def test_a_retry_is_told_and_its_success_counts(talking, world):
    events = world.events()
    rules = [Rule(When(text="go"), "Here.", fault="rate_limited", times=1), Rule(When(text="go"), "Here.")]
    async with talking(rules) as talk:
        outcome = await talk.send("go", events)
    assert outcome.status == "completed"
    (retry,) = events.of(Retrying)
    assert (retry.attempt, retry.category) == (1, "rate_limit")
    assert retry.retry_after_ms >= 1000


async def test_after_a_failure_the_process_takes_the_next_turn(talking):
    rules = [Rule(When(text="on"), "On."), Rule(When(text="go"), fault="bad_request")]
    async with talking(rules) as talk:
        assert (await talk.send("go")).status == "failed"
        outcome = await talk.send("on")
    assert (outcome.status, outcome.text) == ("completed", "On."), outcome


async def test_a_line_of_several_megabytes_is_one_delta(talking, world):
    events = world.events()
    async with talking([Rule(When(text="go"), Reply(["a", "b"]), fault=Malformed("long_line"))]) as talk:
        outcome = await talk.send("go", events)
    assert outcome.status == "completed"
    assert max(len(delta.text) for delta in events.of(TextDelta)) > 2_500_000
    assert outcome.text == "".join(delta.text for delta in events.of(TextDelta))


async def test_a_line_over_the_limit_fails_the_turn_and_the_session_is_kept(talking, world):
    long = Reply(["a", "b"])
    rules = [Rule(When(text="on"), "On."), Rule(When(text="go"), long, fault=Malformed("long_line"))]
    async with talking(rules, settings={"max_line_bytes": 1_000_000}) as talk:
        outcome = await talk.send("go")
        assert (outcome.status, outcome.failure.category) == ("failed", "protocol")
        await talk.run.close()
        resume = talk.run.upstream_session_id
        async with talking(sim=talk.sim, resume=resume) as again:
            assert (await again.send("on")).text == "On."
            assert again.run.upstream_session_id == resume


async def test_half_a_character_does_not_lose_the_turn(talking, world):
    events = world.events()
    async with talking([Rule(When(text="go"), Reply(["a", "b"]), fault="lone_surrogate")]) as talk:
        outcome = await talk.send("go", events)
    assert outcome.status == "completed"
    assert "\ufffd" in outcome.text


async def test_the_servers_hint_is_passed_on(talking):
    rules = [Rule(When(text="go"), fault=Status(429, retry_after=2))]
    async with talking(rules) as talk:
        outcome = await talk.send("go")
    assert outcome.failure.retry_after_ms >= 2000


async def test_a_limit_of_the_callers_is_the_callers(talking, world):
    """The real CLI ends a turn that needs more rounds than `max_turns`."""
    call = Reply([ToolUse("Bash", {"command": "true"})])
    async with talking([Rule(When(text="go"), [call, call, "Over."])], ask=world.allow, max_turns=1) as talk:
        outcome = await talk.send("go")
    assert (outcome.status, outcome.failure.category) == ("failed", "caller")
    assert "maximum number of turns" in outcome.failure.message
