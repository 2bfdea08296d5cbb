"""The engine's errors as errors that travel: kinds and facts become codes and data, here and nowhere else."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from dragoman_protocol.errors import BY_KIND, RpcError

from dragomand.engine.errors import EngineError
from dragomand.server.route import Call, Handler


def to_rpc(error: EngineError) -> RpcError:
    """Make the error that travels. Facts that the kind's data has no place for stay in the log."""
    row = BY_KIND[error.kind]
    fields = row.data.__struct_fields__
    known = {name: value for name, value in error.data.items() if name in fields and value is not None}
    return RpcError(error.kind, error.message, **known)


def translated(handler: Handler) -> Handler:
    """Return *handler* with its `EngineError`s raised as `RpcError`s."""
    if inspect.iscoroutinefunction(handler):
        return _translated_coroutine(handler)

    @functools.wraps(handler)
    def plain(call: Call, params: Any) -> Any:
        try:
            return handler(call, params)
        except EngineError as error:
            raise to_rpc(error) from error

    return plain


def _translated_coroutine(handler: Callable[[Call, Any], Awaitable[Any]]) -> Handler:
    @functools.wraps(handler)
    async def coroutine(call: Call, params: Any) -> Any:
        try:
            return await handler(call, params)
        except EngineError as error:
            raise to_rpc(error) from error

    return coroutine
