import msgspec
import pytest
from dragoman_protocol.errors import invalid_params
from dragoman_protocol.expected import hint_at
from dragoman_protocol.lifecycle import InitializeParams, PermissionDecision
from dragoman_protocol.orchestrate import OrchestrateParallelParams
from dragoman_protocol.query import QueryRunParams

SCOPES = "'admin', 'approve', 'auth', 'query', 'read-all-sessions', 'tools'."


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (
            InitializeParams,
            b'{"scopes": ["query", "frob"]}',
            "at $.scopes[1]: Invalid enum value 'frob'; expected one of " + SCOPES,
        ),
        (PermissionDecision, b'{"decision": "yes"}', "; expected one of 'allow', 'deny'."),
        (
            QueryRunParams,
            b'{"prompt": "x", "permissionMode": "yolo"}',
            "; expected one of 'acceptEdits', 'bypassPermissions', 'default', 'dontAsk', 'plan'.",
        ),
        (
            QueryRunParams,
            b'{"promt": "x"}',
            "Invalid parameters at $.promt: Object contains unknown field `promt`; did you mean `prompt`?",
        ),
        (QueryRunParams, b'{"prompt": "x", "session_id": "s"}', "; did you mean `sessionId`?"),
        (QueryRunParams, b'{"prompt": "x", "zzzz": 1}', "Object contains unknown field `zzzz`."),
        (OrchestrateParallelParams, b'{"items": [{"prompt": "x"}, {"promt": ""}]}', "did you mean `prompt`?"),
        (QueryRunParams, b'{"prompt": 3}', "."),
    ],
)
def test_what_was_expected_is_said(kind: type, text: bytes, told: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(text, type=kind)
    assert invalid_params(caught.value, kind).message.endswith(told)
    assert "expected one of" not in invalid_params(caught.value).message


def test_a_place_that_is_not_there() -> None:
    assert hint_at(QueryRunParams, "$.nowhere[0].x", "Invalid enum value 'x'") == ""
    assert hint_at(QueryRunParams, "$", "Object contains unknown field `" + "x" * 100 + "`") == ""


def test_what_is_in_a_map() -> None:
    kinds = msgspec.defstruct("Kinds", [("by_name", dict[str, PermissionDecision])])
    assert hint_at(kinds, "$.by_name[...].decision", "Invalid enum value 'x'").endswith("'allow', 'deny'")
