import json
from collections.abc import Callable
from typing import Any

import pytest
from dragoman_protocol.auth import AuthStatusResult, CloudAuth


@pytest.fixture
def served(scripted: Any, home: Any) -> Any:
    scripted.listen(home.paths.socket)
    return scripted


@pytest.mark.parametrize(("hours", "expiry"), [(None, ""), (7.5, ", expires in 7.5 h")])
def test_signed_in(run: Callable[..., Any], served: Any, hours: float | None, expiry: str) -> None:
    found = AuthStatusResult(
        authenticated=True, source="environment", provider="anthropic", token_present=True,
        time_until_expiry_hours=hours,
    )  # fmt: skip
    served.answers("auth/status", found)
    done = run("auth", "status")
    assert done == (0, f"Signed in (anthropic, credential from environment{expiry}).\n", "")
    assert json.loads(run("auth", "status", "--json").out)["authenticated"] is True


@pytest.mark.parametrize("step", [None, "Log in first."])
def test_not_signed_in(run: Callable[..., Any], served: Any, step: str | None) -> None:
    found = AuthStatusResult(
        authenticated=False, source="none", provider="anthropic", token_present=False, next_step=step
    )
    served.answers("auth/status", found)
    done = run("auth", "status")
    assert done.status == 1
    assert done.out == "Not signed in.\n" + (f"{step}\n" if step else "")
    assert run("auth", "status", "--json").status == 1


@pytest.mark.parametrize(
    ("cloud", "line"),
    [
        (
            CloudAuth(provider="vertex", state="found", source="gcloud", region="eu", project="p"),
            "Direct queries: vertex, eu, p (credential from gcloud).\n",
        ),
        (
            CloudAuth(provider="bedrock", state="notAsked"),
            "Direct queries: bedrock (not asked for a credential yet).\n",
        ),
    ],
)
def test_a_cloud_beside_it(run: Callable[..., Any], served: Any, cloud: CloudAuth, line: str) -> None:
    found = AuthStatusResult(
        authenticated=True, source="claudeCodeLogin", provider="anthropic", token_present=False,
        messages_api=cloud,
    )  # fmt: skip
    served.answers("auth/status", found)
    assert run("auth", "status").out.endswith(f"claudeCodeLogin).\n{line}")
    assert json.loads(run("auth", "status", "--json").out)["messagesApi"]["provider"] == cloud.provider
