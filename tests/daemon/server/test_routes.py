"""Methods by name, their parameters, and what is said of a method that there is not."""

from typing import Any

import msgspec
import pytest
from dragoman_protocol.errors import RpcError
from dragoman_protocol.values import Params
from dragomand.server.route import Route
from dragomand.server.routes import Routes


class Two(Params):
    name: str
    count: int = 1


def handler(_call: Any, params: Two) -> Two:
    return params


ROUTES = Routes([Route("group/verb", Two, handler, "inline"), Route("group/other", Two, handler, scope="x")])


def test_a_route_is_prepared() -> None:
    verb, other = ROUTES.by_name["group/verb"], ROUTES.by_name["group/other"]
    assert verb.params(msgspec.Raw(b'{"name":"a"}')) == Two(name="a")
    assert (verb.inline, verb.while_draining, verb.scope) == (True, True, None)
    assert (other.inline, other.while_draining, other.scope) == (False, False, "x")


@pytest.mark.parametrize(
    ("raw", "path", "reason"),
    [
        (b"", "$.name", "missing"),
        (b"null", "$.name", "missing"),
        (b" null ", "$.name", "missing"),
        (b'{"name":1}', "$.name", "Expected `str`, got `int`"),
        (b'{"name":"a","count":"b"}', "$.count", "Expected `int`, got `str`"),
        (b'{"name":"a","cuont":1}', "$.cuont", "cuont"),
        (b"[]", "$", "Expected `object`, got `array`"),
    ],
)
def test_wrong_parameters_are_located(raw: bytes, path: str, reason: str) -> None:
    with pytest.raises(RpcError) as caught:
        ROUTES.by_name["group/verb"].params(msgspec.Raw(raw))
    assert caught.value.kind == "invalid_params"
    assert caught.value.data.path == path  # type: ignore[attr-defined]
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("method", "closely", "nearest"),
    [
        ("Group.Verb", False, "group/verb"),
        ("group/verbs", True, "group/verb"),
        ("group/verbs", False, None),
        ("zzz", True, None),
        ("group/verb" + "x" * 100, True, None),
    ],
)
def test_the_nearest_method_is_named(method: str, closely: bool, nearest: str | None) -> None:
    error = ROUTES.unknown(method, look_closely=closely)
    assert error.kind == "method_not_found"
    assert error.data.nearest == nearest  # type: ignore[attr-defined]
    assert (nearest or "`initialize` lists") in error.message
    assert len(error.message) < 250
