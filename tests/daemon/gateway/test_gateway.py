"""When there is a gateway, and for whom."""

import asyncio
import os
from typing import Any

import pytest
from dragoman_sim import Simulator
from dragomand.engine.errors import EngineError
from dragomand.gateway import gateway as module
from dragomand.gateway.gateway import HOST


def sockets(at: Any) -> list[str]:
    return sorted(os.listdir(at.folder))


async def test_access_of_a_run(at: Any) -> None:
    sim = await at.stack.enter_async_context(Simulator())
    gateway = at.make(base_url=sim.url)
    access = await gateway.open_access(unix=True)
    assert access.base_url == f"http://{HOST}"
    assert access.unix_socket == str(at.folder / f"gw-{os.getpid()}.sock")
    assert access.token not in repr(access)
    client = await at.client(access)
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 200
    assert gateway.tokens().data == []  # it is no program's
    assert not gateway.revoke(access.grant_id).revoked
    access.revoke()
    access.revoke()
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 401


async def test_access_of_a_run_that_knows_no_unix_sockets(at: Any) -> None:
    sim = await at.stack.enter_async_context(Simulator())
    access = await at.make(base_url=sim.url).open_access(unix=False)
    assert access.base_url.startswith("http://127.0.0.1:")
    assert access.unix_socket is None
    assert sockets(at) == []
    client = await at.client(access)
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 200


async def test_a_socket_that_was_removed_is_made_anew(at: Any) -> None:
    sim = await at.stack.enter_async_context(Simulator())
    gateway = at.make(base_url=sim.url)
    first = await gateway.open_access(unix=True)
    os.unlink(first.unix_socket)
    client = await at.client(await gateway.open_access(unix=True))
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 200


async def test_nothing_listens_before_and_after(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_S", 0.0)
    gateway = at.make()
    assert sockets(at) == []
    first, second = [await gateway.open_access(unix=True) for _ in range(2)]
    first.revoke()
    await asyncio.sleep(0)
    assert len(sockets(at)) == 1
    second.revoke()
    await at.until(lambda: sockets(at) == [])


async def test_a_new_grant_keeps_it_open(at: Any) -> None:
    gateway = at.make()
    (await gateway.open_access(unix=True)).revoke()
    assert gateway._linger is not None
    await gateway.open_access(unix=True)
    assert gateway._linger is None


async def test_without_a_key_there_is_none(at: Any) -> None:
    gateway = at.make()
    at.key = None
    assert await gateway.open_access(unix=True) is None
    with pytest.raises(EngineError, match="only with an API key") as refused:
        await gateway.issue("x", False)
    assert refused.value.kind == "upstream_unavailable"
    assert "ANTHROPIC_API_KEY" in refused.value.data["next_step"]


async def test_it_can_be_switched_off(at: Any) -> None:
    gateway = at.make(enabled=False)
    assert await gateway.open_access(unix=True) is None
    with pytest.raises(EngineError, match="switched off"):
        await gateway.issue("x", False)


async def test_without_its_package_there_is_none(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = at.make()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _name: None)
    assert await gateway.open_access(unix=True) is None
    with pytest.raises(EngineError, match="aiohttp"):
        await gateway.issue("x", False)


async def test_a_folder_that_is_gone(at: Any) -> None:
    gateway = at.make()
    at.folder.rmdir()
    assert await gateway.open_access(unix=True) is None  # the key goes by file descriptor then


async def test_tokens_of_programs(at: Any) -> None:
    gateway = at.make()
    one = await gateway.issue("one", False)
    other = await gateway.issue("other", True)
    assert one.unix_socket is not None
    assert other.unix_socket is None
    assert [(each.name, each.tcp) for each in gateway.tokens().data] == [("one", False), ("other", True)]
    assert not any(one.token in repr(each) for each in at.calls.grants)
    assert gateway.revoke(one.token_id).revoked
    assert not gateway.revoke(one.token_id).revoked
    assert [each.name for each in gateway.tokens().data] == ["other"]
    long = await gateway.issue("x" * 1000, False)
    assert long.name == gateway.tokens().data[1].name == "x" * 100


async def test_their_number_is_bounded(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TOKENS", 1)
    gateway = at.make()
    await gateway.issue("one", False)
    with pytest.raises(EngineError) as refused:
        await gateway.issue("two", False)
    assert refused.value.kind == "queue_full"


async def test_a_path_that_is_too_long_for_a_socket(at: Any) -> None:
    at.folder = at.folder / ("d" * 100)
    at.folder.mkdir(mode=0o700)
    gateway = at.make()
    with pytest.raises(EngineError, match="too long"):
        await gateway.issue("x", False)
    access = await gateway.open_access(unix=True)
    assert access.unix_socket is None  # over the port instead


async def test_when_it_cannot_be_loaded_its_socket_goes(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_name: str) -> None:
        raise ImportError("no such thing")

    monkeypatch.setattr(module.importlib, "import_module", broken)
    gateway = at.make()
    await gateway.open_access(unix=True)
    await at.until(lambda: sockets(at) == [])


async def test_after_its_end_there_is_none(at: Any) -> None:
    gateway = at.make()
    await gateway.open_access(unix=True)
    await gateway.close()
    assert await gateway.open_access(unix=True) is None
    assert sockets(at) == []
    assert at.calls.grants == []
