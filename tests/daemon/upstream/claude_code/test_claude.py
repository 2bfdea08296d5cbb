"""Starts that fail, and a CLI that misbehaves.

Where the real CLI cannot be made to misbehave a *pretender* stands in for it: a script that speaks as much of
stream-json as the test needs.
"""

import asyncio
import json
import os
import sys
import uuid

import pytest
from dragoman_protocol.stream import AssistantText, Raw, TextDelta
from dragoman_sim import Simulator
from dragomand.upstream.interface import PermissionAnswer, UpstreamError

PRELUDE = """#!{python} -I
import json, os, signal, sys
session = next((a.split("=", 1)[1] for a in sys.argv if a.startswith(("--session-id=", "--resume="))), "")
def say(**frame):
    sys.stdout.write(json.dumps(frame) + chr(10))
    sys.stdout.flush()
def raw(data):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
def read():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)
def reply(request, **response):
    answer = {{"request_id": request["request_id"], "subtype": "success", **response}}
    say(type="control_response", response=answer)
def ready():
    reply(read(), response={{"claude_code_version": "0.0.1"}})
def result(**more):
    say(type="result", subtype="success", is_error=False, session_id=session, result="Over.", **more)
"""


@pytest.fixture
def pretender(world):
    """Write a script that stands in for the CLI; return its path."""

    def write(body):
        path = world.root / "pretender"
        path.write_text(PRELUDE.format(python=sys.executable) + body)
        path.chmod(0o755)
        return str(path)

    return write


async def fails_to_open(world, executable, **more):
    settings = {name: more.pop(name) for name in ("start_timeout_s",) if name in more}
    upstream = world.upstream(executable=executable, **settings)
    with pytest.raises(UpstreamError) as caught:
        await upstream.open(world.spec(**more), world.deny)
    assert world.survivors() == []
    return caught.value.failure


# starts


async def test_an_executable_that_is_not_there(world):
    failure = await fails_to_open(world, str(world.root / "nowhere"))
    assert failure.category == "missing"
    assert "claude.path" in failure.message


async def test_a_file_that_is_no_program(world):
    program = world.root / "program"
    program.write_bytes(b"\x00\x01\x02")
    program.chmod(0o755)
    failure = await fails_to_open(world, str(program))
    assert failure.category == "missing"
    assert "cannot be started" in failure.detail


@pytest.mark.parametrize("folder", ["nowhere", "a-file"])
async def test_a_working_directory_that_is_none(world, folder):
    (world.root / "a-file").write_text("")
    failure = await fails_to_open(world, None, cwd=world.root / folder)
    assert failure.category == "caller"
    assert folder in failure.message
    assert not list((world.root / "children").iterdir())


async def test_a_program_that_never_becomes_ready_is_ended(world, pretender):
    silent = pretender("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()")
    failure = await fails_to_open(world, silent, start_timeout_s=0.5)
    assert failure.category == "crash"
    assert "0.5 s" in failure.message


async def test_a_program_that_speaks_another_language(world, pretender):
    chatty = pretender("print('Welcome to claude!')\nprint('{half')\nsys.stdout.flush()\nread(); read()")
    failure = await fails_to_open(world, chatty, start_timeout_s=1.5)
    assert failure.category == "protocol"
    assert "2 lines" in failure.message


async def test_a_program_that_ends_tells_why_without_the_key(world, pretender):
    failure = await fails_to_open(world, pretender(f"sys.exit('no luck with {world.key}')"))
    assert failure.category == "crash"
    assert "status 1" in failure.message
    assert failure.detail.startswith("no luck with ")
    assert world.key not in failure.detail


async def test_a_program_that_refuses_to_be_initialised(world, pretender):
    refusing = pretender(
        "request = read()\n"
        "say(type='control_response', response={'request_id': request['request_id'], 'subtype': 'error',"
        " 'error': 'not today'})\nread()"
    )
    failure = await fails_to_open(world, refusing)
    assert failure.category == "protocol"
    assert "not today" in failure.message


async def test_cancelling_the_start_leaves_nothing(world, pretender):
    started = world.root / "started"
    os.mkfifo(started)
    upstream = world.upstream(executable=pretender(f"open({str(started)!r}, 'w').close()\nread(); read()"))
    opening = asyncio.create_task(upstream.open(world.spec(), world.deny))
    await asyncio.to_thread(started.read_bytes)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await upstream.close()
    assert world.survivors() == []
    assert not list((world.root / "children").iterdir())


async def test_without_a_key_none_is_passed_on(world, pretender):
    body = "ready()\nread()\nsay(type='brand_new', names=sorted(os.environ))\nresult()\nread()"
    _, events, _ = await turn_of(world, pretender(body))
    assert "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR" in bytes(events.of(Raw)[0].frame).decode()
    _, events, _ = await turn_of(world, pretender(body), settings={"api_key": lambda: None})
    assert "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR" not in bytes(events.of(Raw)[0].frame).decode()


# turns


async def turn_of(world, executable, *, ask=None, settings=None, **choices):
    """Return the outcome of one turn, its events and the closed run."""
    events = world.events()
    upstream = world.upstream(executable=executable, **(settings or {}))
    run = await upstream.open(world.spec(**choices), ask or world.deny)
    async with asyncio.timeout(30):
        outcome = await run.send("hello", str(uuid.uuid4()), events)
    await run.close()
    assert world.survivors() == []
    return outcome, events, run


async def test_another_session_than_the_one_to_resume_is_a_mismatch(world, pretender):
    body = "ready()\nread()\nsay(type='system', subtype='init', session_id='another')\nread()"
    outcome, _, run = await turn_of(world, pretender(body), resume=str(uuid.uuid4()))
    assert (outcome.status, outcome.failure.category) == ("failed", "mismatch")
    assert "another" in outcome.failure.message
    assert run.version == "0.0.1"


async def test_a_session_that_changes_later_is_followed(world, pretender):
    body = (
        "ready()\nread()\nsay(type='keep_alive', session_id=session)\nsession = 'cleared'\nresult()\nread()"
    )
    outcome, _, run = await turn_of(world, pretender(body))
    assert outcome.status == "completed"
    assert run.upstream_session_id == "cleared"


async def test_lines_that_are_no_json_are_kept(world, pretender):
    noise = r"raw(b'oops {\n\xff\xfe\n\n')"
    body = f"ready()\nread()\n{noise}\nsay(type='brand_new', n=1)\nresult()\nread()"
    outcome, events, run = await turn_of(world, pretender(body))
    assert outcome.status == "completed"
    assert [json.loads(bytes(raw.frame)) for raw in events.of(Raw)] == [
        "oops {",
        "\ufffd\ufffd",
        {"type": "brand_new", "n": 1},
    ]
    assert run.unreadable_lines == 2


async def test_a_result_with_fields_of_another_shape_still_ends_the_turn(world, pretender):
    body = "ready()\nread()\nresult(usage='a lot', total_cost_usd=0.5, errors={})\nread()"
    outcome, _, _ = await turn_of(world, pretender(body))
    assert (outcome.status, outcome.text, outcome.cost_usd) == ("completed", "Over.", 0.5)


async def test_a_question_that_is_not_known_is_answered_with_an_error(world, pretender):
    body = (
        "ready()\nread()\nsay(type='control_request', request_id='q1', request={'subtype': 'make_tea'})\n"
        "answer = read()\nsay(type='brand_new', answer=answer)\nresult()\nread()"
    )
    _, events, _ = await turn_of(world, pretender(body))
    (raw,) = events.of(Raw)
    response = json.loads(bytes(raw.frame))["answer"]["response"]
    assert (response["subtype"], response["request_id"]) == ("error", "q1")
    assert "make_tea" in response["error"]


async def test_a_question_may_be_withdrawn(world, pretender):
    asked = asyncio.Event()
    withdrawn = asyncio.Event()

    async def ask(_):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            withdrawn.set()
        return PermissionAnswer(allow=True)

    body = (
        "ready()\nread()\nsay(type='control_request', request_id='q', request={'subtype': 'can_use_tool'})\n"
        "say(type='control_cancel_request', request_id='q')\n"
        "say(type='control_cancel_request', request_id='never asked')\n"
        "say(type='control_request', request_id='q2', request={'subtype': 'other'})\n"
        "say(type='brand_new', answer=read())\nresult()\nread()"
    )
    _, events, _ = await turn_of(world, pretender(body), ask=ask)
    (raw,) = events.of(Raw)
    assert json.loads(bytes(raw.frame))["answer"]["response"]["request_id"] == "q2"
    assert withdrawn.is_set() or not asked.is_set()


async def test_sub_agents_do_not_get_into_the_answer(world, pretender):
    body = """
ready()
read()
def piece(event, **more): say(type="stream_event", event=event, **more)
def block(text, **more):
    say(type="assistant", message={"id": "m", "content": [{"type": "text", "text": text}]}, **more)
def grow(text, **more):
    piece({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}, **more)
piece({"type": "message_start", "message": {"id": "m"}})
piece({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
grow("main ")
piece({"type": "message_start", "message": {"id": "s"}}, parent_tool_use_id="t")
grow("SUB", parent_tool_use_id="t")
block("SUB", parent_tool_use_id="t")
grow("text")
block("main text")
result()
read()
"""
    _, events, _ = await turn_of(world, pretender(body))
    assert [(delta.item_id, delta.offset, delta.text) for delta in events.of(TextDelta)] == [
        ("m.0", 0, "main "),
        ("m.0", 5, "text"),
    ]
    assert [(item.item_id, item.text) for item in events.of(AssistantText)] == [("m.0", "main text")]
    assert len(events.of(Raw)) == 3


async def test_cancelling_send_tells_the_cli_before_its_input_ends(world, pretender):
    heard = world.root / "heard"
    body = f"""
ready()
read()
say(type="brand_new")
with open({str(heard)!r}, "w", buffering=1) as file:
    for line in sys.stdin:
        file.write(line)
"""
    events = world.events()
    upstream = world.upstream(executable=pretender(body))
    run = await upstream.open(world.spec(), world.deny)
    turn = asyncio.create_task(run.send("hello", "m", events))
    await events.wait_for(Raw)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    await run.close()
    (request,) = [json.loads(line) for line in heard.read_text().splitlines()]
    assert request["request"] == {"subtype": "interrupt", "cancel_queued": True}


async def test_a_message_that_is_not_taken_fails_the_turn(world, pretender):
    body = (
        "ready()\nuser = read()\n"
        "say(type='command_lifecycle', command_uuid=user['uuid'], state='refused')\nread()"
    )
    outcome, _, _ = await turn_of(world, pretender(body))
    assert (outcome.status, outcome.failure.category) == ("failed", "protocol")
    assert "refused" in outcome.failure.message


async def test_results_of_turns_that_are_not_ours_do_not_end_ours(world, pretender):
    body = (
        "ready()\nuser = read()\n"
        "say(type='result', is_error=True, user_message_uuids=['of another'], session_id=session)\n"
        "say(type='command_lifecycle', command_uuid=user['uuid'], state='queued')\n"
        "say(type='command_lifecycle', command_uuid=user['uuid'], state='started')\n"
        "result(user_message_uuids=[user['uuid']])\nread()"
    )
    outcome, _, _ = await turn_of(world, pretender(body))
    assert (outcome.status, outcome.text) == ("completed", "Over.")


async def test_what_comes_between_turns_is_counted(world, pretender):
    told = world.root / "told"
    os.mkfifo(told)
    body = f"""
ready()
read()
result()
say(type="brand_new")
result()
say(type="keep_alive")
say(type="control_request", request_id="q", request={{"subtype": "are you there?"}})
read()
open({str(told)!r}, "w").close()
read()
result()
read()
"""
    upstream = world.upstream(executable=pretender(body))
    run = await upstream.open(world.spec(), world.deny)
    async with asyncio.timeout(30):
        await run.send("one", "m1", world.events())
        await asyncio.to_thread(told.read_bytes)
        assert run.stray_frames == 2
        await run.send("two", "m2", world.events())
    await run.close()
    assert run.stray_frames == 2


async def test_a_crash_tells_the_end_of_stderr_without_the_key(world, pretender):
    body = f"ready()\nread()\nsys.stderr.write('x' * 50_000 + ' the end of {world.key}')\nos._exit(70)"
    outcome, _, _ = await turn_of(world, pretender(body))
    assert (outcome.status, outcome.failure.category) == ("failed", "crash")
    assert "status 70" in outcome.failure.message
    assert "the end of" in outcome.failure.detail
    assert len(outcome.failure.detail) < 10_000
    assert world.key not in outcome.failure.detail


async def test_the_bundled_cli_is_found_without_being_named(world):
    async with Simulator() as sim:
        upstream = world.upstream(sim)
        run = await upstream.open(world.spec(), world.deny)
        assert (await run.send("hello", "not a uuid", world.events())).status == "completed"
        await run.close()
        assert sim.messages[0].from_claude_code


# silence


async def test_a_process_that_says_nothing_any_more_is_given_up_as_overload(world, pretender):
    body = "ready()\nread()\nsay(type='keep_alive', session_id=session)\nread(); read(); read()"
    outcome, _, _ = await turn_of(world, pretender(body), settings={"stall_s": 0.3})
    assert (outcome.status, outcome.failure.category) == ("failed", "overload")
    assert "said nothing for 0.3 s" in outcome.failure.message


async def test_one_that_stops_when_asked_because_of_its_silence_has_failed_too(world, pretender):
    body = (
        "ready()\nread()\nread()\n"
        "say(type='result', subtype='error_during_execution', is_error=True,"
        " terminal_reason='aborted_streaming', session_id=session)\nread()"
    )
    outcome, _, _ = await turn_of(world, pretender(body), settings={"stall_s": 0.3})
    assert (outcome.status, outcome.failure.category) == ("failed", "overload")


async def test_a_tool_or_a_retry_may_take_its_time(world, pretender):
    ended = world.root / "ended"
    body = f"""
import time
ready()
read()
content = [{{"type": "tool_use", "id": "t", "name": "Bash", "input": {{}}}}]
say(type="assistant", message={{"id": "m", "content": content}}, session_id=session)
time.sleep(1.0)
content = [{{"type": "tool_result", "tool_use_id": "t", "content": "done"}}]
say(type="user", message={{"content": content}}, session_id=session)
say(type="system", subtype="api_retry", attempt=1, retry_delay_ms=800, session_id=session)
time.sleep(0.8)
open({str(ended)!r}, "w").close()
result()
read()
"""
    outcome, _, _ = await turn_of(world, pretender(body), settings={"stall_s": 0.4})
    assert outcome.status == "completed", outcome
    assert ended.exists()
