"""Every rule fails on a seeded violation, and not on what looks like one."""

import pytest
from house_rules import (
    both_columns,
    cycles,
    forbidden_names,
    long_files,
    long_functions,
    shared_state,
    test_file_of,
    undocumented,
    values_that_know_rpc,
    wrong_imports,
)
from house_tree import Tree, parse

TREE = {
    "dragoman_protocol.__init__": "",
    "dragoman_protocol.query": "",
    "dragoman_protocol.errors": "",
    "dragoman_protocol.peer": "",
    "dragoman_protocol.methods": "",
    "dragoman.__init__": "",
    "dragoman.locate": "",
    "dragomand.__init__": "",
    "dragomand.app": "",
    "dragomand.engine.__init__": "",
    "dragomand.engine.queries": "",
    "dragomand.policy.bucket": "",
    "dragomand.store.__init__": "",
    "dragomand.store.store": "",
    "dragomand.upstream.interface": "",
    "dragomand.upstream.claude_code.run": "",
    "dragomand.server.route": "",
    "dragomand.server.server": "",
    "dragomand.transport.socket": "",
    "dragomand.process.lock": "",
}


def seeded(name: str, text: str) -> Tree:
    return parse({**TREE, name: text})


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("dragoman_protocol.wire", "import socket"),
        ("dragoman_protocol.wire", "import asyncio"),
        ("dragoman_protocol.wire", "from time import monotonic"),
        ("dragoman_protocol.wire", "import random"),
        ("dragoman_protocol.wire", "import threading"),
        ("dragoman_protocol.wire", "import anyio"),
        ("dragoman_protocol.wire", "import click"),
        ("dragoman_protocol.wire", "from dragoman import locate"),
        ("dragoman_protocol.wire", "def f():\n    import socket"),
        ("dragoman.sync", "import dragomand"),
        ("dragoman.sync", "from dragomand import app"),
        ("dragoman.sync", "if TYPE_CHECKING:\n    from dragomand.app import App"),
        ("dragoman.sync", "import dragoman_sim"),
        ("dragoman_sim.http", "import dragoman_protocol.query"),
        ("dragomand.policy.queue", "import time"),
        ("dragomand.policy.queue", "import random"),
        ("dragomand.policy.queue", "import asyncio"),
        ("dragomand.policy.queue", "import logging"),
        ("dragomand.policy.queue", "import os.path"),
        ("dragomand.policy.queue", "import anyio"),
        ("dragomand.policy.queue", "from dragomand.store import store"),
        ("dragomand.store.rows", "from dragomand.upstream.interface import Failure"),
        ("dragomand.store.rows", "from ..policy.bucket import Bucket"),
        ("dragomand.store.rows", "from dragoman_protocol.query import QueryRunParams"),
        ("dragomand.upstream.claude_code.wire", "from dragomand.store.store import Store"),
        ("dragomand.upstream.claude_code.wire", "from dragomand.policy.bucket import Bucket"),
        ("dragomand.upstream.claude_code.wire", "from dragomand.engine.queries import Queries"),
        ("dragomand.engine.turn", "from dragomand.server.route import Client"),
        ("dragomand.engine.turn", "from dragomand.transport import socket"),
        ("dragomand.engine.turn", "from dragomand.handlers import query"),
        ("dragomand.engine.turn", "from dragomand import app"),
        ("dragomand.engine.turn", "from dragomand.upstream.claude_code.run import Run"),
        ("dragomand.engine.turn", "from dragoman_protocol import methods"),
        ("dragomand.engine.turn", "from dragoman_protocol.errors import RpcError"),
        ("dragomand.engine.turn", "from dragoman_protocol.peer import Peer"),
        ("dragomand.server.dispatch", "from dragomand.engine.queries import Queries"),
        ("dragomand.server.dispatch", "from dragoman_protocol.query import QueryRunParams"),
        ("dragomand.server.dispatch", "from dragoman_protocol.methods import METHODS"),
        ("dragomand.transport.stdio", "from dragomand.server.server import Server"),
        ("dragomand.transport.stdio", "from dragoman_protocol.peer import Peer"),
        ("dragomand.handlers.query", "from dragomand.store.store import Store"),
        ("dragomand.handlers.query", "from dragomand.server.server import Server"),
        ("dragomand.process.guard", "from dragomand.engine.queries import Queries"),
    ],
)
def test_forbidden_import_is_found(module: str, statement: str) -> None:
    (found,) = wrong_imports(seeded(module, statement))
    assert "must not import" in found


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("dragoman_protocol.wire", "import json, re\nimport msgspec\nfrom .errors import RpcError"),
        ("dragoman.sync", "import socket\nfrom dragoman_protocol import peer\nfrom dragoman import locate"),
        ("dragoman.cli.sim", "from dragoman_sim.__main__ import main"),
        ("dragomand.policy.queue", "import heapq\nfrom collections import deque\nfrom .bucket import Bucket"),
        ("dragomand.store.rows", "import aiosqlite, time"),
        ("dragomand.engine.t", "import time\nfrom dragoman_protocol import query\nimport dragomand.store"),
        ("dragomand.engine.turn", "from dragomand.upstream import interface\nfrom . import queries"),
        ("dragomand.server.dispatch", "from dragoman_protocol.peer import Peer\nfrom .route import Route"),
        ("dragomand.handlers.q", "from dragomand.engine import queries\nfrom dragomand.server import route"),
        ("dragomand.app", "from dragomand.engine import queries\nfrom dragomand.server.server import Server"),
    ],
)  # fmt: skip
def test_allowed_imports_are_not_found(module: str, statement: str) -> None:
    assert wrong_imports(seeded(module, statement)) == []


def test_value_module_that_knows_rpc_is_found() -> None:
    for statement in ("from .errors import RpcError", "from dragoman_protocol import peer"):
        assert len(values_that_know_rpc(seeded("dragoman_protocol.session", statement))) == 1
    assert values_that_know_rpc(seeded("dragoman_protocol.session", "from .query import Upstream")) == []


def test_module_that_knows_both_columns_is_found() -> None:
    both = "from dragomand.engine import queries\nfrom dragomand.server.route import Route"
    assert len(both_columns(seeded("dragomand.life", both))) == 1
    assert len(both_columns(seeded("dragomand.engine.turn", "from dragomand.transport import socket"))) == 1
    for meeting in ("dragomand.app", "dragomand.handlers.query", "dragomand.faces.lsp"):
        assert both_columns(seeded(meeting, both)) == []


def test_cycles_are_found() -> None:
    ring = {
        "a.one": "from a import two",
        "a.two": "def f():\n    import a.three",
        "a.three": "from .one import x",
    }
    assert cycles(parse(ring)) == ["a.one → a.two → a.three → a.one"]
    assert cycles(parse({**ring, "a.three": "if TYPE_CHECKING:\n    from .one import x"})) == []
    assert (
        cycles(parse({"a.one": "import a.two\nimport a.three", "a.two": "import a.three", "a.three": ""}))
        == []
    )


@pytest.mark.parametrize(
    "text",
    [
        "class Pool:\n    def __init__(self): self.free = []\nPOOL = Pool()",
        "class A:\n    def __init__(self): self.x = 1\nclass B(A): pass\n_b: B = B()",
        "import asyncio\nlock = asyncio.Lock()",
        "import threading\nlocal = threading.local()",
        "HANDLERS = {}",
        "HANDLERS: list[str] = []",
        "seen = set()",
        "from collections import defaultdict\nby_name = defaultdict()",
        "count = 0\ndef f():\n    global count\n    count += 1",
        "def register(x): pass\nregister(1)",
    ],
)
def test_shared_state_is_found(text: str) -> None:
    assert len(shared_state(parse({"a.b": text}))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "import re, msgspec\nX = re.compile('x')\n_encode = msgspec.json.Encoder().encode",
        "from typing import NamedTuple\nclass Row(NamedTuple):\n    a: int\nROWS = {'a': Row(1)}",
        "class Missing:\n    '''A mark.'''\nMISSING = Missing()",
        "EXTENSIONS = frozenset(['a'])\nTABLE = {'a': 1}\nBY = dict(a=1) | {'b': 2}",
        "import logging\nlog = logging.getLogger(__name__)",
        "if __name__ == '__main__':\n    print()",
        "def f():\n    cache = {}\n    return cache",
        "class E(Exception):\n    def __init__(self): self.x = 1\nNEVER = E()",
    ],
)
def test_values_are_not_state(text: str) -> None:
    assert shared_state(parse({"a.b": text})) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("dragoman.utils", ""),
        ("dragoman.common.x", ""),
        ("dragoman.session_manager", ""),
        ("dragoman.x", "class HandlerBase: pass"),
        ("dragoman.x", "class RPCService: pass"),
        ("dragoman.x", "def f():\n    class Helpers: pass"),
    ],
)
def test_names_that_say_nothing_are_found(module: str, text: str) -> None:
    assert len(forbidden_names(parse({module: text}))) == 1
    assert (
        forbidden_names(parse({"dragoman.database": "class Commons2Scores: pass\nclass Baseline: pass"}))
        == []
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("x = 1", 1),
        ("'''M.'''\ndef f(): pass", 1),
        ("'''M.'''\nclass A: pass", 1),
        ("'''M.'''\nclass A:\n    '''A.'''\n    def f(self): pass\n    def __init__(self): pass", 2),
        ("'''M.'''\nclass A:\n    '''A.'''\n    async def f(self): pass", 1),
        ("'''M.'''\ndef _f(): pass\nclass _A:\n    def f(self): pass", 0),
        (
            "'''M.'''\nclass A:\n '''A.'''\n @x.setter\n def x(self): pass\n def __eq__(self): pass",
            0,
        ),
    ],
)
def test_missing_docstrings_are_found(text: str, count: int) -> None:
    assert len(undocumented(parse({"a.b": text}))) == count


def test_long_files_and_functions_are_found() -> None:
    line = "    x = 1\n"
    short = "def f():\n    '''Doc.\n\n    More.\n    '''\n" + line * 40
    inner = "def g():\n    def h():\n" + ("    " + line) * 40 + line * 40
    method = "class A:\n    async def f(self):\n" + ("    " + line) * 41
    assert long_functions(parse({"a.b": short + inner})) == {}
    assert long_functions(parse({"a.b": short + line})) == {"a/b.py:f": 41}
    assert long_functions(parse({"a.b": method})) == {"a/b.py:A.f": 41}
    assert long_functions(parse({"a.b": inner.replace("def h():\n", "def h():\n    " + line)})) == {
        "a/b.py:g.h": 41
    }
    assert long_files(parse({"a.b": "x = 1\n" * 400})) == {}
    assert long_files(parse({"a.b": "x = 1\n" * 401})) == {"a/b.py": 401}


@pytest.mark.parametrize(
    ("module", "test_file"),
    [
        ("dragoman_protocol.wire", "tests/protocol/test_wire.py"),
        ("generate.schema", "tests/protocol/generate/test_schema.py"),
        ("dragoman.cli.ask", "tests/clients/cli/test_ask.py"),
        ("dragomand.app", "tests/daemon/test_app.py"),
        ("dragomand.upstream.claude_code.wire", "tests/daemon/upstream/claude_code/test_wire.py"),
        ("dragoman_sim.__main__", "tests/sim/test_main.py"),
        ("dragoman.__init__", "tests/clients/test_init.py"),
    ],
)
def test_where_tests_belong(module: str, test_file: str) -> None:
    (found,) = parse({module: "'''Doc.'''\nx = 1"}).values()
    assert test_file_of(found) == test_file
    (empty,) = parse({module: "'''Doc.'''\n"}).values()
    assert test_file_of(empty) is None
