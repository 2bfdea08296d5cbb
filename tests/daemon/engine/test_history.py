"""A stored conversation as messages."""

from typing import Any

from dragoman_protocol.content import ImageBlock, TextBlock
from dragomand.engine.history import load_history
from dragomand.upstream.interface import HistoryMessage


async def test_completed_turns_only(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts = [kit.answering("one"), kit.failing("overload"), kit.answering("three")]
        picture = [TextBlock(text="b"), ImageBlock(source={"type": "url", "url": "x"})]
        first = await engine.queries.run(engine.params("a"), kit.caller())
        session_id = first.session_id
        lost = engine.queries.run(engine.params("lost", session_id=session_id), kit.caller())
        await kit.refused("upstream_overloaded", lost)
        await engine.queries.run(engine.params(picture, session_id=session_id), kit.caller())
        assert await load_history(engine.store, session_id) == (
            HistoryMessage("user", "a"),
            HistoryMessage("assistant", "one"),
            HistoryMessage("user", picture),
            HistoryMessage("assistant", "three"),
        )


async def test_longer_than_a_page(kit: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("dragomand.engine.history._PAGE", 3)
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params("x"), kit.caller())).session_id
        for _ in range(3):
            await engine.queries.run(engine.params("x", session_id=session_id), kit.caller())
        history = await load_history(engine.store, session_id)
        assert [message.role for message in history] == ["user", "assistant"] * 4


async def test_of_nothing(kit: Any) -> None:
    async with kit.engine() as engine:
        assert await load_history(engine.store, "none") == ()
