"""The session that a request works in: a new one's row, and its title."""

from typing import Any

import pytest
from dragoman_protocol.content import ImageBlock, TextBlock
from dragoman_protocol.stream import StreamOpenParams
from dragomand.engine.session_choice import SessionChoice, first_line


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("hi", "hi"),
        ("  \n first \nsecond", "first "),
        ("", None),
        (" \n\t", None),
        ("é" * 200, "é" * 80),
        ([ImageBlock(source={}), TextBlock(text="look\nat this")], "look"),
        ([ImageBlock(source={})], None),
    ],
)
def test_titles(prompt: Any, title: str | None) -> None:
    assert first_line(prompt) == title


async def test_a_new_sessions_row(kit: Any) -> None:
    async with kit.engine() as engine:
        choice = SessionChoice(engine.sessions, roots=[], clock=lambda: 7.0, new_id=lambda: "new")
        params = engine.params("what?", model="opus", tags=["x"])
        assert choice.id_for(params) == "new"
        row = await choice.row_for(params, "s", kit.caller(), "what?")
        assert (row.session_id, row.epoch, row.created_at, row.updated_at) == ("s", "new", 7.0, 7.0)
        assert (row.title, row.model, row.tags, row.owner) == ("what?", "opus", ("x",), "name of client-1")
        assert (row.claude_session_id, row.claude_message_count, row.last_seq) == (None, None, 0)
        stream = StreamOpenParams(cwd=str(engine.cwd))
        assert (await choice.row_for(stream, "s", kit.caller())).title is None
        named = StreamOpenParams(cwd=str(engine.cwd), title="T")
        assert (await choice.row_for(named, "s", kit.caller())).title == "T"


async def test_a_stored_session(kit: Any) -> None:
    async with kit.engine() as engine:
        made = (await engine.queries.run(engine.params(), kit.caller())).session_id
        choice = SessionChoice(engine.sessions, roots=[], clock=lambda: 7.0, new_id=lambda: "new")
        params = engine.params(session_id=made, title="another", tags=["y"])
        assert choice.id_for(params) == made
        row = await choice.row_for(params, made, kit.caller())
        assert (row.session_id, row.title, row.tags) == (made, "hi", ()), "what it was made with, stays"


async def test_a_folder_that_left_the_roots(kit: Any) -> None:
    async with kit.engine() as engine:
        made = (await engine.queries.run(engine.params(), kit.caller())).session_id
        choice = SessionChoice(engine.sessions, roots=["/other"], clock=lambda: 7.0, new_id=lambda: "new")
        for params, session_id in ((engine.params(session_id=made), made), (engine.params(), "s")):
            refused = choice.row_for(params, session_id, kit.caller())
            assert (await kit.refused("invalid_cwd", refused)).data["reason"] == "outside_roots"
