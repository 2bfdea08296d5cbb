"""The dialects of the clouds: read and answered, in the words that the official SDK understands."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from anthropic import (
    APIStatusError,
    AsyncAnthropicBedrock,
    AsyncAnthropicVertex,
    AuthenticationError,
    BadRequestError,
    RateLimitError,
)
from dragoman_sim import Gate, Malformed, Reply, Rule, Simulator, Status, StreamError, When

MODEL = "us.anthropic.claude-opus-5-5"
VERSIONS = {"bedrock": "bedrock-2023-05-31", "vertex": "vertex-2023-10-16"}


def client_of(cloud: str, url: str, **more: Any) -> Any:
    if cloud == "bedrock":
        return AsyncAnthropicBedrock(
            aws_region="eu-west-1", aws_access_key="AKID", aws_secret_key="made-up", base_url=url,
            max_retries=0, **more,
        )  # fmt: skip
    return AsyncAnthropicVertex(
        region="global", project_id="p", access_token="made-up", base_url=url + "/v1", max_retries=0, **more
    )


def asked(cloud: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    extra = {"anthropic_version": VERSIONS[cloud]}
    return {"model": MODEL, "max_tokens": 9, "messages": messages, "extra_body": extra, **more}


@pytest.fixture(params=["bedrock", "vertex"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return str(request.param)


async def test_the_official_sdk_understands_a_stream(cloud: str) -> None:
    async with (
        Simulator([Rule(reply=Reply(["one ", Gate("g"), "two"]))]) as sim,
        client_of(cloud, sim.url) as api,
    ):
        stream = await api.messages.create(**asked(cloud, stream=True))
        kinds, text = [], ""
        async with asyncio.timeout(20):
            async for event in stream:
                kinds.append(event.type)
                if event.type == "content_block_delta":
                    text += event.delta.text
                    await sim.gate("g").open()
        assert text == "one two"
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
        (record,) = sim.messages
        assert (record.path, record.json()["model"]) == ("/v1/messages", MODEL)
        assert record.dialect is not None
        assert record.dialect.provider == cloud
        assert record.signed_for == ("eu-west-1/bedrock" if cloud == "bedrock" else None)
        told = record.to_dict()
        assert (told["provider"], told["target"]) == (cloud, record.dialect.target)
        assert "made-up" not in str(told["headers"])


async def test_the_official_sdk_understands_a_whole_answer(cloud: str) -> None:
    async with Simulator([Rule(reply="Whole.")]) as sim, client_of(cloud, sim.url) as api:
        message = await api.messages.create(**asked(cloud))
        assert message.content[0].text == "Whole."


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("rate_limited", RateLimitError),
        ("bad_request", BadRequestError),
        ("unauthorized", AuthenticationError),
    ],
)
async def test_errors_are_in_the_clouds_words(cloud: str, fault: str, kind: type[APIStatusError]) -> None:
    async with Simulator([Rule(fault=fault)]) as sim, client_of(cloud, sim.url) as api:
        with pytest.raises(kind) as caught:
            await api.messages.create(**asked(cloud, stream=True))
        headers, body = caught.value.response.headers, caught.value.response.json()
    if cloud == "bedrock":
        assert headers["x-amzn-errortype"].partition(":")[0].endswith("Exception")
        assert headers["x-amzn-requestid"].startswith("req_sim")
        assert list(body) == ["message"]
    else:
        assert body["error"]["status"].isupper()
        assert body["error"]["code"] == caught.value.status_code


async def test_an_error_of_the_scripts_own_choice(cloud: str) -> None:
    async with (
        Simulator([Rule(fault=Status(429, "Named", "words"))]) as sim,
        client_of(cloud, sim.url) as api,
    ):
        with pytest.raises(RateLimitError) as caught:
            await api.messages.create(**asked(cloud))
        told = caught.value.response
        named = told.headers.get("x-amzn-errortype") or told.json()["error"]["status"]
        assert named.startswith("Named")


async def test_an_error_in_the_stream(cloud: str) -> None:
    rules = [Rule(reply=Reply(["a", "b"]), fault=StreamError("rate_limit_error", "slow"))]
    async with Simulator(rules) as sim, client_of(cloud, sim.url) as api:
        stream = await api.messages.create(**asked(cloud, stream=True))
        with pytest.raises(APIStatusError, match="slow"):
            async for _ in stream:
                pass


async def test_tokens_are_counted_by_vertex() -> None:
    async with Simulator() as sim, client_of("vertex", sim.url) as api:
        given = asked("vertex")
        del given["max_tokens"]
        counted = await api.messages.count_tokens(**given)
        assert counted.input_tokens > 5
        assert [record.path for record in sim.requests] == ["/v1/messages/count_tokens"]


def body_of(cloud: str, **more: Any) -> dict[str, Any]:
    fields = {"anthropic_version": VERSIONS[cloud], "max_tokens": 9, "messages": asked(cloud)["messages"]}
    return {**fields, **more}


VERTEX = "/projects/p/locations/l/publishers/anthropic/models"
BEARER = {"authorization": "Bearer x"}


async def test_tokens_are_counted_by_bedrock(http) -> None:
    async with Simulator(
        [Rule(When(path="/v1/messages/count_tokens", text="no"), fault="bad_request")]
    ) as sim:
        path = "/model/anthropic.x/count-tokens"
        inner = base64.b64encode(json.dumps(body_of("bedrock")).encode()).decode()
        given = {"input": {"invokeModel": {"body": inner}}}
        answer = await http.ask(sim.url, "POST", path, json.dumps(given).encode(), **BEARER)
        assert answer.json()["inputTokens"] > 5
        for wrong in ({}, {"input": 3}, {"input": {"invokeModel": {"body": "!"}}}):
            answer = await http.ask(sim.url, "POST", path, json.dumps(wrong).encode(), **BEARER)
            assert answer.status == 400


@pytest.mark.parametrize(
    ("path", "headers", "fields", "status"),
    [
        ("/model/m/invoke", {}, {}, 403),
        ("/model/m/invoke", {"authorization": "AWS4-HMAC-SHA256 Credential=AKID"}, {}, 403),
        ("/model/m/invoke", {"x_api_key": "k"}, {}, 403),
        ("/model/m/invoke", {"authorization": "Bearer "}, {}, 403),
        ("/model/m/invoke", BEARER, {"anthropic_version": "2023-06-01"}, 400),
        ("/model/m/invoke", BEARER, {"messages": []}, 400),
        ("/model/m/other", BEARER, {}, 404),
        ("/model/m/invoke", BEARER, {}, 200),
        ("/model/m%3A1/invoke-with-response-stream", BEARER, {}, 200),
        (f"{VERTEX}/m:rawPredict", {}, {}, 401),
        (f"{VERTEX}/m:rawPredict", {"x_api_key": "k"}, {}, 401),
        (f"{VERTEX}/m:rawPredict", BEARER, {"anthropic_version": VERSIONS["vertex"]}, 200),
        (f"/v1{VERTEX}/m:rawPredict", BEARER, {"anthropic_version": VERSIONS["vertex"], "stream": True}, 400),
        (f"{VERTEX}/m:streamRawPredict", BEARER, {"anthropic_version": VERSIONS["vertex"]}, 400),
        (f"{VERTEX}/m:predict", BEARER, {}, 404),
    ],
)
async def test_what_a_cloud_would_refuse(
    http, path: str, headers: dict[str, str], fields: dict[str, Any], status: int
) -> None:
    async with Simulator() as sim:
        body = json.dumps(body_of("bedrock", **fields)).encode()
        answer = await http.ask(sim.url, "POST", path, body, **headers)
        assert answer.status == status


async def test_a_get_is_no_clouds(http) -> None:
    async with Simulator() as sim:
        assert (await http.ask(sim.url, "GET", "/model/m/invoke")).status == 404


@pytest.mark.parametrize("body", [b"no json", b"[]", b"3"])
async def test_a_body_that_is_none(http, body: bytes) -> None:
    async with Simulator() as sim:
        for path in ("/model/m/invoke", f"{VERTEX}/m:rawPredict"):
            assert (await http.ask(sim.url, "POST", path, body, **BEARER)).status == 400


@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_checksum_is_one_of_a_stream_with_checksums(http, stream: bool) -> None:
    async with Simulator([Rule(reply="Fine.", fault=Malformed("checksum"))]) as sim:
        answer = await http.message(sim.url, "x", stream=stream)
        if stream:
            assert b": damaged" in answer.body
        else:
            assert answer.json()["content"][0]["text"] == "Fine."
