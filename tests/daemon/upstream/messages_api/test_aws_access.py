"""AWS's own chain: what it finds, once for all who wait, renewed in time; and what is said of nothing."""

import asyncio
import builtins
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dragomand.upstream.interface import UpstreamError
from dragomand.upstream.messages_api import aws_access
from dragomand.upstream.messages_api.aws_access import AwsAccess, AwsChain
from dragomand.upstream.messages_api.endpoint import CloudSettings

SECRET = "made-up-secret/abc"


def chain(*, signs: bool = True, **settings: Any) -> AwsChain:
    chosen = {"region": "eu-west-1", "credential_timeout_s": 20.0, **settings}
    return AwsChain(CloudSettings(**chosen), signs=signs)


def role(seconds: float, name: str = "AKIDROLE") -> tuple[int, dict[str, Any]]:
    ends = datetime.now(UTC) + timedelta(seconds=seconds)
    expiration = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    return 200, {"AccessKeyId": name, "SecretAccessKey": SECRET, "Token": "t", "Expiration": expiration}


def aged(access: AwsAccess, left_s: float) -> AwsAccess:
    """The keys, as if their end had come nearer."""
    access.holder._expiry_time = datetime.now(UTC) + timedelta(seconds=left_s)
    return access


async def refused(coroutine: Any) -> Any:
    with pytest.raises(UpstreamError) as caught:
        await coroutine
    assert SECRET not in str(caught.value)
    return caught.value.failure


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch, no_cloud: Path, credential_server: Any) -> Any:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", credential_server.url + "/role")
    return credential_server


async def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch, no_cloud: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    asked = chain(environment={"AWS_ACCESS_KEY_ID": "AKIDENV"})
    before = asked.status()
    assert (before.state, before.source, before.next_step) == ("notAsked", "AWS_ACCESS_KEY_ID", None)
    access = await asked.access()
    assert (access.keys.access_key, access.source, access.region) == ("AKIDENV", "env", "eu-west-1")
    assert access.url == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    assert await asked.access() is access
    after = asked.status()
    assert (after.state, after.source, after.region, after.expires_at) == ("found", "env", "eu-west-1", None)
    assert SECRET not in repr(access) + repr(after)


async def test_a_profile_brings_its_keys_and_its_region(no_cloud: Path) -> None:
    (no_cloud / "aws-credentials").write_text(
        f"[work]\naws_access_key_id = AKIDWORK\naws_secret_access_key = {SECRET}\n"
        f"[default]\naws_access_key_id = AKIDDEFAULT\naws_secret_access_key = {SECRET}\n"
    )
    (no_cloud / "aws-config").write_text("[profile work]\nregion = ap-southeast-2\n")
    access = await chain(profile="work", region="").access()
    assert (access.keys.access_key, access.region) == ("AKIDWORK", "ap-southeast-2")
    assert access.source == "shared-credentials-file"
    named = chain(region="", environment={"AWS_PROFILE": "work"})
    assert (await named.access()).keys.access_key == "AKIDWORK"
    assert (await chain().access()).keys.access_key == "AKIDDEFAULT"
    assert chain(profile="work").status().source == "profile work"


async def test_the_region_and_the_endpoint_from_the_environment(no_cloud: Path) -> None:
    env = {"AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "x", "ANTHROPIC_BEDROCK_BASE_URL": "http://h/p/"}
    access = await chain(signs=False, region="", environment=env).access()
    assert access == AwsAccess("us-west-2", "http://h/p")
    assert (
        await chain(signs=False, region="", environment={"AWS_DEFAULT_REGION": "x"}).access()
    ).region == "x"
    assert (await chain(signs=False, url="http://u", environment=env).access()).url == "http://u"


async def test_a_bearer_needs_the_profiles_region_only(no_cloud: Path) -> None:
    (no_cloud / "aws-config").write_text("[default]\nregion = eu-north-1\n")
    bearer = chain(signs=False, region="")
    assert bearer.region is None
    assert await bearer.access() == AwsAccess(
        "eu-north-1", "https://bedrock-runtime.eu-north-1.amazonaws.com"
    )
    bearer.forget()
    assert bearer.region == "eu-north-1"


async def test_nothing_found_says_what_to_do(no_cloud: Path) -> None:
    asked = chain(environment={"HOME": str(no_cloud)})
    assert asked.status().source is None
    assert "first query asks" in (asked.status().next_step or "")
    failure = await refused(asked.access())
    assert failure.category == "auth"
    assert "AWS's chain has no credential" in failure.message
    assert "aws sso login" in failure.message
    assert (asked.status().state, asked.status().next_step) == ("failed", failure.message)


async def test_no_region_says_what_to_do(no_cloud: Path) -> None:
    failure = await refused(chain(region="").access())
    assert failure.category == "auth"
    assert "direct.region" in failure.message


async def test_a_profile_that_is_not_there(no_cloud: Path) -> None:
    failure = await refused(chain(profile="typo").access())
    assert failure.category == "auth"
    assert "typo" in failure.message


async def test_somebody_signs_in_after_a_failure(no_cloud: Path) -> None:
    asked = chain(environment={"HOME": str(no_cloud)})
    await refused(asked.access())
    text = f"[default]\naws_access_key_id = AKIDLATE\naws_secret_access_key = {SECRET}\n"
    (no_cloud / "aws-credentials").write_text(text)
    assert (await asked.access()).keys.access_key == "AKIDLATE"
    assert asked.status().state == "found"
    (no_cloud / "aws-credentials").write_text(text.replace("LATE", "LATER"))
    assert (await asked.access()).keys.access_key == "AKIDLATE"
    asked.forget()  # the provider has refused the old ones
    assert (await asked.access()).keys.access_key == "AKIDLATER"


async def test_a_role_is_asked_once_for_all_and_told_with_its_end(container: Any) -> None:
    container.answers = [role(3600)]
    asked = chain()
    found = await asyncio.gather(*(asked.access() for _ in range(20)))
    assert {access.keys.access_key for access in found} == {"AKIDROLE"}
    assert container.asked == 1
    status = asked.status()
    assert status.source == "container-role"
    assert status.expires_at is not None
    assert status.expires_at > datetime.now(UTC).timestamp() + 3000


async def test_keys_that_end_soon_are_used_while_others_are_fetched(container: Any) -> None:
    container.answers = [role(3600), role(7200, "AKIDNEW")]
    asked = chain()
    first = aged(await asked.access(), 700)
    container.open.clear()
    container.waiting.clear()
    assert await asked.access() is first  # not kept waiting
    async with asyncio.timeout(20):
        await container.waiting.wait()
    assert await asked.access() is first
    assert container.asked == 2
    container.open.set()
    assert (await asked._refresh.begin()).keys.access_key == "AKIDNEW"
    assert (await asked.access()).keys.access_key == "AKIDNEW"
    assert container.asked == 2


async def test_keys_that_have_ended_are_waited_for(container: Any) -> None:
    container.answers = [role(3600), role(7200, "AKIDNEW")]
    asked = chain()
    assert aged(await asked.access(), 200).keys.access_key == "AKIDROLE"
    assert (await asked.access()).keys.access_key == "AKIDNEW"
    assert container.asked == 2


@pytest.mark.filterwarnings("ignore")
async def test_a_role_that_can_not_be_renewed_ends_and_the_chain_is_asked_anew(container: Any) -> None:
    container.answers = [role(3600), *[(400, {"message": "no more"})] * 3, role(7200, "AKIDNEW")]
    asked = chain()
    aged(await asked.access(), 200)
    failure = await refused(asked.access())
    assert failure.category == "auth"
    assert asked.status().state == "failed"
    assert (await asked.access()).keys.access_key == "AKIDNEW"


async def test_a_service_that_does_not_answer_keeps_nobody(container: Any) -> None:
    container.answers = [role(3600)]
    container.open.clear()
    asked = chain(credential_timeout_s=0.2)
    failure = await refused(asked.access())
    assert failure.category == "auth"
    assert "within 0.2 s" in failure.message
    assert asked.status().state == "failed"
    late = asked._refresh.begin()  # joined, not repeated
    container.open.set()
    async with asyncio.timeout(20):
        assert (await late).keys.access_key == "AKIDROLE"
    assert asked.status().state == "found"


async def test_a_renewal_that_does_not_come_may_be_tried_again(container: Any) -> None:
    container.answers = [role(3600)]
    asked = chain()
    aged(await asked.access(), 200)
    container.open.clear()
    asked._refresh._timeout_s = 0.2
    failure = await refused(asked.access())
    assert failure.category == "overload"
    container.open.set()
    async with asyncio.timeout(20):
        await asked._refresh.begin()


async def test_an_unreachable_service_is_no_missing_credential(no_cloud: Path) -> None:
    asked = chain(profile="sso")
    (no_cloud / "aws-config").write_text(
        "[profile sso]\nregion = us-east-1\nrole_arn = arn:aws:iam::123456789012:role/r\n"
        "source_profile = base\nendpoint_url = http://127.0.0.1:9\n"
        "[profile base]\nendpoint_url = http://127.0.0.1:9\n"
    )
    (no_cloud / "aws-credentials").write_text(
        f"[base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = {SECRET}\n"
    )
    failure = await refused(asked.access())
    assert failure.category == "overload"
    assert "cannot be reached" in failure.message


async def test_without_amazons_library(monkeypatch: pytest.MonkeyPatch, no_cloud: Path) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("botocore"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(aws_access, "is_installed", lambda: False)
    asked = chain()
    assert (asked.status().state, asked.status().next_step) == ("notInstalled", aws_access.INSTALL)
    failure = await refused(asked.access())
    assert "pip install 'dragoman[bedrock]'" in failure.message
    assert "direct.region" in (await refused(chain(signs=False, region="").access())).message
    assert (await chain(signs=False).access()).region == "eu-west-1"  # a bearer and a region need no library


def test_the_library_is_here() -> None:
    assert aws_access.is_installed()
