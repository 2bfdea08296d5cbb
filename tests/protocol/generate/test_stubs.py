"""The stubs: one method per request of a client, blocking and awaited, that put the request together."""

import inspect
from typing import Any

import msgspec
import pytest
from dragoman import stubs
from dragoman_protocol.methods import METHODS, Method
from dragoman_protocol.query import QueryRunParams, QueryRunResult
from dragoman_protocol.values import Empty, Params
from generate import source  # type: ignore[import-not-found,unused-ignore]
from generate import stubs as generator  # type: ignore[import-not-found,unused-ignore]

ROWS = pytest.mark.parametrize("row", generator.client_requests(), ids=lambda row: row.name)
LIFECYCLE = {"initialize", "shutdown"}


class Blocking(stubs.Calls):
    """Remembers what it was asked to send."""

    def __init__(self) -> None:
        self.sent: tuple[Any, ...] = ()

    def _call(self, *request: Any) -> Any:
        self.sent = request
        return "result"


class Awaited(stubs.AsyncCalls):
    """The same, awaited."""

    def __init__(self) -> None:
        self.sent: tuple[Any, ...] = ()

    async def _call(self, *request: Any) -> Any:
        self.sent = request
        return "result"


def test_every_request_of_a_client_has_a_stub() -> None:
    wanted = {name for name, row in METHODS.items() if row.sender == "client" and row.result} - LIFECYCLE
    assert {row.name for row in generator.client_requests()} == wanted
    for cls in (stubs.Calls, stubs.AsyncCalls):
        public = {name for name, value in vars(cls).items() if inspect.isfunction(value) and name[0] != "_"}
        assert public == {generator.python_name(name) for name in wanted}


@ROWS
async def test_stub_puts_the_request_together(row: Method) -> None:
    name = generator.python_name(row.name)
    types = msgspec.structs.fields(row.params)
    values: dict[str, Any] = {field.name: object() for field in types}
    blocking, awaited = Blocking(), Awaited()
    assert getattr(blocking, name)(**values, timeout_s=1.5) == "result"
    assert await getattr(awaited, name)(**values, timeout_s=1.5) == "result"
    assert blocking.sent == awaited.sent == (row.name, row.params(**values), row.result, 1.5)


@ROWS
async def test_defaults_are_those_of_the_parameters(row: Method) -> None:
    name = generator.python_name(row.name)
    required = [field for field in msgspec.structs.fields(row.params) if field.required]
    values: dict[str, Any] = {field.name: "x" for field in required}
    blocking, awaited = Blocking(), Awaited()
    getattr(blocking, name)(**values)
    await getattr(awaited, name)(**values)
    assert blocking.sent == awaited.sent == (row.name, row.params(**values), row.result, None)


def test_prompt_alone_may_be_positional() -> None:
    calls = Blocking()
    calls.query_run("hello")
    assert calls.sent == ("query/run", QueryRunParams(prompt="hello"), QueryRunResult, None)
    kinds = {parameter.kind for parameter in inspect.signature(calls.stream_send).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_only_the_transport_is_missing() -> None:
    assert stubs.Calls.__abstractmethods__ == stubs.AsyncCalls.__abstractmethods__ == {"_call"}


def test_docstring_names_fields_scope_and_errors() -> None:
    doc = inspect.getdoc(stubs.Calls.query_run) or ""
    assert doc.startswith(METHODS["query/run"].summary)
    assert "\nsession_id: Continue this session." in doc
    assert "Needs the scope `query`." in doc
    assert "`auth_required`" in doc


@pytest.mark.parametrize(
    ("method", "name"),
    [("auth/status", "auth_status"), ("stream/queueList", "stream_queue_list"), ("a/b", "a_b")],
)
def test_names(method: str, name: str) -> None:
    assert generator.python_name(method) == name


class _Clash(Params):
    timeout_s: int


def test_field_with_a_name_of_the_stubs_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    field = source.Field("timeout_s", "timeoutS", "int", None, "", "x")
    monkeypatch.setattr(source, "fields", lambda struct: (field,))
    with pytest.raises(ValueError, match="a/b: the parameter 'timeout_s'"):
        generator._method(Method("a/b", "S.", _Clash, Empty), awaited=False)


@pytest.mark.parametrize("default", ["[]", "{}", "Usage()"])
def test_default_that_is_no_constant_is_refused(default: str) -> None:
    with pytest.raises(ValueError, match="must be a constant"):
        generator._argument(source.Field("a", "a", "Any", default, "", "x"))
