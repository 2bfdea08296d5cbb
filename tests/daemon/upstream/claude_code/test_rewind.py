"""Files that the real CLI has changed are put back by it."""

import uuid

import pytest
from dragoman_sim import Reply, Rule, When
from dragoman_sim import ToolUse as Call
from dragomand.upstream.claude_code import rewind as rewind_module
from dragomand.upstream.claude_code.control import ControlError, ControlLostError
from dragomand.upstream.claude_code.rewind import rewind_files
from dragomand.upstream.interface import UpstreamError


async def test_files_are_put_back_as_they_were_when_a_message_came(talking, world):
    note, new = world.cwd / "note.txt", world.cwd / "new.txt"
    note.write_text("before\n")
    rules = [
        Rule(When(text="write"), [
            Reply([Call("Read", {"file_path": str(note)})]),
            Reply([Call("Write", {"file_path": str(note), "content": "after\n"})]),
            Reply([Call("Write", {"file_path": str(new), "content": "one\ntwo\n"})]),
            "Over.",
        ])
    ]  # fmt: skip
    async with talking(rules, ask=world.allow, file_checkpointing=True) as talk:
        message = str(uuid.uuid4())
        assert (await talk.run.send("write", message, world.events())).status == "completed"
        assert (note.read_text(), new.read_text()) == ("after\n", "one\ntwo\n")
        asked = await talk.run.rewind_files(message, dry_run=True)
        assert set(asked.files) == {str(note), str(new)}
        assert (note.read_text(), new.exists()) == ("after\n", True)
        with pytest.raises(UpstreamError) as caught:
            await talk.run.rewind_files(str(uuid.uuid4()), dry_run=False)
        assert caught.value.failure.category == "caller"
        assert note.read_text() == "after\n"
        done = await talk.run.rewind_files(message, dry_run=False)
        assert done == asked
        assert (note.read_text(), new.exists()) == ("before\n", False)
        assert (await talk.send("go on")).status == "completed"


async def test_without_copies_nothing_is_put_back(talking):
    async with talking() as talk:
        message = str(uuid.uuid4())
        await talk.run.send("hello", message, lambda _: None)
        with pytest.raises(UpstreamError) as caught:
            await talk.run.rewind_files(message, dry_run=False)
    assert (caught.value.failure.category, caught.value.failure.message) == (
        "caller",
        "File rewinding is not enabled.",
    )


class Answers:
    """A control channel that answers by a list."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def request(self, request, timeout_s):
        assert timeout_s == rewind_module.TIMEOUT_S
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("answer", "category", "said"),
    [
        (ControlLostError("gone"), "crash", "gone"),
        (TimeoutError(), "crash", "files may have been changed"),
        (ControlError("no"), "caller", "no"),
        ({"canRewind": False, "error": "why not"}, "caller", "why not"),
        ({}, "caller", "gave no reason"),
    ],
)
async def test_what_goes_wrong_is_told(answer, category, said):
    for before in ((), ({"canRewind": True, "filesChanged": ["/f"]},)):
        control = Answers(*before, answer)
        with pytest.raises(UpstreamError, match=said) as caught:
            await rewind_files(control, "u", dry_run=False)
        assert caught.value.failure.category == category


async def test_an_answer_of_another_shape_tells_no_files():
    odd = {"canRewind": True, "filesChanged": "all", "insertions": "many"}
    rewound = await rewind_files(Answers(odd), "u", dry_run=True)
    assert (rewound.files, rewound.insertions, rewound.deletions) == ((), 0, 0)
