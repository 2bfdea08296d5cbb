"""The two bases: values are lenient, parameters strict, both camelCase and sparing."""

import msgspec
import pytest
from dragoman_protocol.values import Empty, Params, Value


class Reading(Value):
    session_id: str
    turn_count: int = 0


class Asking(Params):
    session_id: str


def test_fields_are_camel_case_and_defaults_are_left_out() -> None:
    assert msgspec.json.encode(Reading(session_id="s")) == b'{"sessionId":"s"}'
    assert msgspec.json.encode(Reading(session_id="s", turn_count=1)) == b'{"sessionId":"s","turnCount":1}'


def test_values_ignore_what_they_do_not_know() -> None:
    read = msgspec.json.decode(b'{"sessionId":"s","of_the_future":1}', type=Reading)
    assert read == Reading(session_id="s")
    assert msgspec.json.decode(b'{"anything":1}', type=Empty) == Empty()


def test_params_refuse_what_they_do_not_know() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `sesionId`"):
        msgspec.json.decode(b'{"sessionId":"s","sesionId":"t"}', type=Asking)
