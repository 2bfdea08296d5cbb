"""Google's own chain: what it finds, once for all who wait, renewed in time; and what is said of nothing."""

import asyncio
import builtins
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dragomand.upstream.interface import UpstreamError
from dragomand.upstream.messages_api import google_access
from dragomand.upstream.messages_api.endpoint import CloudSettings
from dragomand.upstream.messages_api.google_access import GoogleAccess, GoogleChain

TOKEN = "ya29.made-up"
SECRET = "made-up-refresh-token"


def chain(**settings: Any) -> GoogleChain:
    chosen = {"region": "us-east5", "project": "p-1", "credential_timeout_s": 20.0, **settings}
    return GoogleChain(CloudSettings(**chosen))


def token(name: str = TOKEN, seconds: int = 3600) -> tuple[int, dict[str, Any]]:
    return 200, {"access_token": name, "expires_in": seconds, "token_type": "Bearer"}


def aged(access: GoogleAccess, left_s: float) -> GoogleAccess:
    """The token, as if its end had come nearer."""
    access.holder.expiry = (datetime.now(UTC) + timedelta(seconds=left_s)).replace(tzinfo=None)
    return access


async def refused(coroutine: Any) -> Any:
    with pytest.raises(UpstreamError) as caught:
        await coroutine
    assert SECRET not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return caught.value.failure


@pytest.fixture
def user_file(monkeypatch: pytest.MonkeyPatch, no_cloud: Path, credential_server: Any) -> Any:
    """A person's own credential in a file, whose token service is on 127.0.0.1."""
    file = no_cloud / "adc.json"
    file.write_text(json.dumps({
        "type": "authorized_user", "client_id": "c", "client_secret": "made-up", "refresh_token": SECRET,
    }))  # fmt: skip
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", credential_server.url)
    credential_server.answers = [token()]
    return credential_server


async def test_a_token_for_all_who_wait(user_file: Any) -> None:
    asked = chain(environment={"GOOGLE_APPLICATION_CREDENTIALS": "f"})
    before = asked.status()
    assert (before.state, before.source) == ("notAsked", "GOOGLE_APPLICATION_CREDENTIALS")
    assert (before.region, before.project, before.next_step) == ("us-east5", "p-1", None)
    found = await asyncio.gather(*(asked.access() for _ in range(20)))
    assert {access.holder.token for access in found} == {TOKEN}
    assert user_file.asked == 1
    assert (await asked.access()).project == "p-1"
    after = asked.status()
    assert (after.state, after.source) == ("found", "oauth2.credentials")
    assert after.expires_at is not None
    assert 3000 < after.expires_at - datetime.now(UTC).timestamp() < 3700
    assert TOKEN not in repr(found[0]) + repr(after)


async def test_a_service_accounts_file_names_the_project(
    monkeypatch: pytest.MonkeyPatch, no_cloud: Path, credential_server: Any
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = no_cloud / "account.json"
    file.write_text(json.dumps({
        "type": "service_account", "project_id": "of-the-account", "private_key": pem.decode(),
        "client_email": "a@b.c", "token_uri": credential_server.url, "private_key_id": "1",
    }))  # fmt: skip
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    credential_server.answers = [token()]
    access = await chain(project="").access()
    assert (access.project, access.source) == ("of-the-account", "oauth2.service_account")
    named = chain(project="", environment={"ANTHROPIC_VERTEX_PROJECT_ID": "mine"})
    assert (await named.access()).project == "mine"


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("us-east5", "https://us-east5-aiplatform.googleapis.com/v1"),
        ("global", "https://aiplatform.googleapis.com/v1"),
        ("us", "https://aiplatform.us.rep.googleapis.com/v1"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com/v1"),
    ],
)
def test_the_endpoint_of_a_region(region: str, url: str) -> None:
    assert chain(region=region).url == url
    assert chain(region="", environment={"CLOUD_ML_REGION": region}).url == url


def test_another_endpoint() -> None:
    env = {"ANTHROPIC_VERTEX_BASE_URL": "http://h/v1/"}
    assert chain(environment=env).url == "http://h/v1"
    assert chain(environment=env, url="http://other/v1").url == "http://other/v1"


async def test_no_region_and_no_project_say_what_to_do(user_file: Any) -> None:
    assert "direct.region" in (await refused(chain(region="").access())).message
    failure = await refused(chain(project="").access())
    assert failure.category == "auth"
    assert "direct.project" in failure.message


async def test_nothing_found_says_what_to_do(no_cloud: Path) -> None:
    asked = chain(environment={"HOME": str(no_cloud)})
    assert asked.status().source is None
    assert "first query asks" in (asked.status().next_step or "")
    failure = await refused(asked.access())
    assert failure.category == "auth"
    assert "gcloud auth application-default login" in failure.message
    assert (asked.status().state, asked.status().next_step) == ("failed", failure.message)


def test_gclouds_own_file_is_a_sign(no_cloud: Path) -> None:
    (no_cloud / "gcloud").mkdir()
    (no_cloud / "gcloud" / "application_default_credentials.json").write_text("{}")
    asked = chain(environment={"CLOUDSDK_CONFIG": str(no_cloud / "gcloud")})
    assert asked.status().source == "application_default_credentials.json"


async def test_a_token_that_ends_soon_is_used_while_another_is_fetched(user_file: Any) -> None:
    user_file.answers = [token(), token("ya29.new")]
    asked = chain()
    first = aged(await asked.access(), 200)
    user_file.open.clear()
    user_file.waiting.clear()
    assert (await asked.access()).holder.token == TOKEN
    async with asyncio.timeout(20):
        await user_file.waiting.wait()
    assert (await asked.access()) is first
    user_file.open.set()
    assert (await asked._refresh.begin()).holder.token == "ya29.new"
    assert user_file.asked == 2


async def test_a_token_that_has_ended_is_waited_for(user_file: Any) -> None:
    user_file.answers = [token(), token("ya29.new")]
    asked = chain()
    aged(await asked.access(), -1)
    assert (await asked.access()).holder.token == "ya29.new"


async def test_a_credential_that_was_withdrawn(user_file: Any) -> None:
    user_file.answers = [
        token(),
        (400, {"error": "invalid_grant", "error_description": "revoked"}),
        token("n"),
    ]
    asked = chain()
    aged(await asked.access(), -1)
    failure = await refused(asked.access())
    assert failure.category == "auth"
    assert "invalid_grant" in failure.message
    assert asked.status().state == "failed"
    assert (await asked.access()).holder.token == "n"


async def test_the_provider_refused_the_token(user_file: Any) -> None:
    user_file.answers = [token(), token("ya29.new")]
    asked = chain()
    await asked.access()
    asked.forget()
    assert (await asked.access()).holder.token == "ya29.new"


async def test_a_service_that_does_not_answer_keeps_nobody(user_file: Any) -> None:
    user_file.open.clear()
    asked = chain(credential_timeout_s=0.2)
    failure = await refused(asked.access())
    assert failure.category == "auth"
    assert "within 0.2 s" in failure.message
    late = asked._refresh.begin()
    user_file.open.set()
    async with asyncio.timeout(20):
        await late
    assert asked.status().state == "found"
    aged(await asked.access(), -1)
    user_file.open.clear()
    assert (await refused(asked.access())).category == "overload"
    user_file.open.set()
    async with asyncio.timeout(20):
        await asked._refresh.begin()


async def test_an_unreachable_service_is_no_missing_credential(
    monkeypatch: pytest.MonkeyPatch, user_file: Any
) -> None:
    monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    failure = await refused(chain().access())
    assert failure.category == "overload"
    assert "cannot be reached" in failure.message


async def test_a_service_in_trouble_may_be_asked_again(
    monkeypatch: pytest.MonkeyPatch, user_file: Any
) -> None:
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    user_file.answers = [(503, {"error": "internal_failure"})]
    assert (await refused(chain().access())).category == "overload"


async def test_a_file_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, no_cloud: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(no_cloud / "typo.json"))
    failure = await refused(chain().access())
    assert failure.category == "auth"
    assert "typo.json" in failure.message


async def test_without_googles_library(monkeypatch: pytest.MonkeyPatch, no_cloud: Path) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("google.auth"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(google_access, "is_installed", lambda: False)
    asked = chain()
    assert (asked.status().state, asked.status().next_step) == ("notInstalled", google_access.INSTALL)
    assert "pip install 'dragoman[vertex]'" in (await refused(asked.access())).message


def test_whether_the_library_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert google_access.is_installed()

    def no_google(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.util.find_spec", no_google)
    assert not google_access.is_installed()
