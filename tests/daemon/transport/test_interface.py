"""Every transport and every receiver is what the other side was promised."""

import inspect

import pytest
from dragomand.server.connection import Connection
from dragomand.server.server import Server
from dragomand.transport.interface import SOFT_BYTES, Door, Receiver, Transport
from dragomand.transport.memory import MemoryTransport
from dragomand.transport.socket import SocketConnection
from dragomand.transport.stdio import SocketPair, StdioConnection

PAIRS = [
    (Transport, MemoryTransport),
    (Transport, SocketConnection),
    (Transport, StdioConnection),
    (Transport, SocketPair),
    (Receiver, Connection),
    (Door, Server),
]


@pytest.mark.parametrize(("promised", "kept"), PAIRS)
def test_it_takes_what_was_promised(promised: type, kept: type) -> None:
    functions = [
        name for name, value in vars(promised).items() if inspect.isfunction(value) and name[0] != "_"
    ]
    assert functions
    for name in functions:
        wanted = inspect.signature(vars(promised)[name]).parameters
        assert inspect.signature(getattr(kept, name)).parameters.keys() == wanted.keys(), name


def test_the_bound_is_the_one_of_the_documents() -> None:
    assert SOFT_BYTES == 4 * 1024 * 1024
