"""The id of a new session (02.4)."""

import pytest
from dragomand.engine.errors import EngineError
from dragomand.engine.session_ids import new_session_id

ID = "0b0f5f52-6f3c-4a37-9c39-0c7f2a5c1e11"


def test_the_clients_own_or_a_new_one() -> None:
    assert new_session_id(None, lambda: "new") == "new"
    assert new_session_id(ID, lambda: "new") == ID
    assert new_session_id(ID.upper(), lambda: "new") == ID


@pytest.mark.parametrize("chosen", ["", "mine", "../../etc", ID + "0", ID.replace("-", ""), "{" + ID + "}"])
def test_what_is_no_uuid(chosen: str) -> None:
    with pytest.raises(EngineError, match="newSessionId must be a UUID") as caught:
        new_session_id(chosen, lambda: "new")
    assert caught.value.data["path"] == "$.newSessionId"
