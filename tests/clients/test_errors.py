import re

import dragoman
import pytest
from dragoman import errors
from dragoman_protocol.errors import BY_KIND, ErrorBody, RpcError, from_body


def leaves() -> set[type[errors.RequestError]]:
    found: set[type[errors.RequestError]] = set()
    open_ = [errors.RequestError]
    while open_:
        cls = open_.pop()
        below = cls.__subclasses__()
        open_ += below
        if not below:
            found.add(cls)
    return found


@pytest.mark.parametrize("kind", sorted(BY_KIND))
def test_every_kind_of_the_registry_has_a_class_of_its_own(kind: str) -> None:
    cls = errors.class_of(kind)
    assert cls in leaves()
    error = errors.from_rpc(RpcError(kind))
    assert type(error) is cls
    assert (error.kind, error.code, error.message) == (kind, BY_KIND[kind].code, BY_KIND[kind].meaning)
    assert error.retryable == BY_KIND[kind].retryable
    assert isinstance(error, dragoman.DragomanError)
    assert isinstance(error, RpcError)


def test_every_class_has_a_kind_of_the_registry() -> None:
    assert {errors.class_of(kind) for kind in BY_KIND} == leaves()


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: list[tuple[int, str, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"((?:[│├└ ][─ ]{3})*)([A-Z]\w+Error)\s+(\S+)", line)
        if found:
            drawn.append((len(found[1]) // 4 - 1, found[2], found[3]))
    assert drawn[0][1] == "DragomanError"
    path: list[type] = []
    for depth, name, word in drawn:
        cls = getattr(errors, name)
        assert cls.__doc__
        del path[depth:]
        if depth:
            assert path[-1] in cls.__bases__, name
        path.append(cls)
        if cls in leaves():
            assert errors.class_of(word) is cls, name
    assert leaves() <= {getattr(errors, name) for _, name, _ in drawn}


def test_data_and_texts_of_the_daemon_are_kept() -> None:
    sent = RpcError("session_not_found", "There is no session 'x'.", session_id="x")
    error = errors.from_rpc(from_body(sent.body()))
    assert isinstance(error, errors.SessionNotFoundError)
    assert isinstance(error, errors.SessionError)
    assert error.data == sent.data
    assert str(error) == "There is no session 'x'."
    assert error.body() == sent.body()


def test_a_kind_of_a_newer_daemon_is_a_plain_request_error() -> None:
    error = errors.from_rpc(from_body(ErrorBody(code=4711, message="The moon is full.")))
    assert type(error) is errors.RequestError
    assert (error.code, str(error)) == (4711, "The moon is full.")


def test_the_family_of_what_never_reached_the_daemon() -> None:
    for cls in (errors.NotRunningError, errors.BusyError, errors.UntrustedError, errors.LaunchError):
        assert issubclass(cls, errors.LocateError)
        assert issubclass(cls, dragoman.DragomanError)
        assert not issubclass(cls, errors.RequestError)
    assert issubclass(errors.RequestTimeoutError, TimeoutError)
    assert not errors.LocateError("x").retryable


def test_a_word_that_is_no_kind_has_no_class() -> None:
    assert errors.class_of("protocol") is errors.ProtocolError  # a family: no kind of the registry
    assert errors.class_of("moon_phase") is errors.RequestError
    assert errors.class_of("timeout") is errors.RequestError
