"""Claude on Amazon Bedrock, against the simulator, the official SDK and Amazon's own library."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import AnthropicBedrock
from anthropic.lib.aws._auth import get_auth_headers
from dragoman_protocol.query import ApiOptions
from dragoman_protocol.stream import AssistantText, TextDelta, Thinking
from dragoman_sim import Gate, Malformed, Pings, Reply, Rule, Simulator, Stall, Status, StreamError, When
from dragoman_sim import Thinking as SimThinking
from dragoman_sim.event_stream import message
from dragomand.upstream.interface import UpstreamError
from dragomand.upstream.messages_api import CloudSettings, DirectSettings, MessagesApi
from dragomand.upstream.messages_api.bedrock import INLINE_BYTES, VERSION, Bedrock, ChunkReader
from dragomand.upstream.messages_api.sse import TooLongError
from dragomand.upstream.messages_api.wire import UnreadableError

BEARER = "made-up-bearer"
DEADLINE_S = 20.0
COUNT = "/v1/messages/count_tokens"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "made-up/secret", "AWS_SESSION_TOKEN": "t"}


def bedrock(url: str = "", *, bearer: str | None = BEARER, **settings: Any) -> Bedrock:
    environment = settings.pop("environment", {})
    if bearer is not None:
        environment = {"AWS_BEARER_TOKEN_BEDROCK": bearer, **environment}
    return Bedrock(
        CloudSettings(**{"region": "us-east-1", "url": url, "environment": environment, **settings})
    )


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, no_cloud: Path) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@asynccontextmanager
async def talk(kit: Any, rules: Any = (), *, spans: Any = None, **choices: Any) -> AsyncIterator[Any]:
    """A run, the simulator behind it and the cloud between them."""
    cloud_settings = choices.pop("cloud", {})
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator(rules))
        cloud = bedrock(**{"url": sim.url, **cloud_settings})
        api = MessagesApi(api_key=lambda: None, settings=DirectSettings(**(spans or {})), cloud=cloud)
        stack.push_async_callback(api.close)
        run = await api.open(kit.spec(**choices), kit.nobody)
        yield Talk(sim, api, cloud, run, kit)


class Talk:
    def __init__(self, sim: Simulator, api: MessagesApi, cloud: Bedrock, run: Any, kit: Any) -> None:
        self.sim, self.api, self.cloud, self.run = sim, api, cloud, run
        self.events = kit.Events()

    async def send(self, prompt: Any) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            return await self.run.send(prompt, "m", self.events)


# -- a turn


async def test_a_turn_with_a_bearer_token(kit: Any) -> None:
    rules = [Rule(When(text="think"), Reply([SimThinking("Hm, hm."), "It is so."], piece_chars=3))]
    async with talk(kit, rules, model="opus") as talking:
        outcome = await talking.send("think")
        assert (outcome.status, outcome.failure) == ("completed", None)
        assert (outcome.text, outcome.stop_reason) == ("It is so.", "end_turn")
        assert (outcome.usage.output_tokens, outcome.model) == (5, "us.anthropic.claude-opus-5-5")
        assert outcome.cost_usd == outcome.usage.input_tokens * 4e-6 + 5 * 20e-6
        assert "".join(event.text for event in talking.events.of(TextDelta)) == "It is so."
        told = [*talking.events, *outcome.last_events]
        assert [event.text for event in told if isinstance(event, Thinking)] == ["Hm, hm."]
        assert [event.text for event in told if isinstance(event, AssistantText)] == ["It is so."]
        (record,) = talking.sim.messages
        assert record.dialect.target == "/model/us.anthropic.claude-opus-5-5/invoke-with-response-stream"
        assert record.used_key(BEARER)
        assert record.json()["anthropic_version"] == VERSION


async def test_a_turn_that_is_signed(kit: Any, keys: None) -> None:
    async with talk(kit, cloud={"bearer": None}) as talking:
        assert talking.cloud.status().state == "notAsked"
        assert (await talking.send("hello")).text == "You said: hello"
        assert (await talking.send("again")).text == "You said: again"
        first, second = talking.sim.messages
        assert (first.credential, first.signed_for) == ("signature", "us-east-1/bedrock")
        assert first.used_key("AKIDTEST")
        assert "x-amz-security-token" in first.headers
        assert [turn["content"] for turn in second.json()["messages"]] == [
            "hello",
            "You said: hello",
            "again",
        ]
        assert (talking.cloud.status().state, talking.cloud.status().source) == ("found", "env")


async def test_a_long_prompt_is_signed_in_a_thread(kit: Any, keys: None) -> None:
    async with talk(kit, [Rule(reply="Long.")], cloud={"bearer": None}) as talking:
        assert (await talking.send("x" * (INLINE_BYTES + 1))).text == "Long."


async def test_a_profile_in_the_settings_is_meant_more_than_a_bearer(kit: Any, no_cloud: Path) -> None:
    text = "[work]\naws_access_key_id = AKIDWORK\naws_secret_access_key = s\n"
    (no_cloud / "aws-credentials").write_text(text)
    async with talk(kit, cloud={"profile": "work"}) as talking:
        assert (await talking.send("x")).status == "completed"
        assert talking.sim.messages[0].used_key("AKIDWORK")


async def test_deltas_come_while_the_answer_is_written(kit: Any) -> None:
    async with talk(kit, [Rule(reply=Reply(["half ", Gate("g"), "and half"]))]) as talking:
        turn = asyncio.create_task(talking.send("x"))
        assert (await talking.events.wait_for(TextDelta)).text == "half "
        await talking.sim.gate("g").open()
        assert (await turn).text == "half and half"


async def test_a_turn_is_broken_off(kit: Any) -> None:
    async with talk(kit, [Rule(reply=Reply(["half ", Gate("g")]))]) as talking:
        turn = asyncio.create_task(talking.send("x"))
        await talking.events.wait_for(TextDelta)
        assert await talking.run.interrupt()
        assert (await turn).status == "interrupted"
        assert await talking.sim.wait_ended(talking.sim.messages[0]) == "abandoned"


async def test_no_credential_ends_the_turn_with_what_to_do(kit: Any, no_cloud: Path) -> None:
    async with talk(kit, cloud={"bearer": None}) as talking:
        outcome = await talking.send("x")
        assert (outcome.status, outcome.failure.category) == ("failed", "auth")
        assert "aws sso login" in outcome.failure.message
        assert not talking.sim.requests


async def test_a_bearer_that_no_header_can_carry(kit: Any) -> None:
    async with talk(kit, cloud={"bearer": "made-up\nbearer"}) as talking:
        failure = (await talking.send("x")).failure
        assert failure.category == "auth"
        assert "made-up" not in failure.message
        assert not talking.sim.requests


@pytest.mark.parametrize(("model", "category"), [("..", "caller"), ("", "completed")])
async def test_a_models_name_leads_nowhere_else(kit: Any, model: str, category: str) -> None:
    async with talk(kit, model=model) as talking:
        outcome = await talking.send("x")
        assert (outcome.failure.category if outcome.failure else outcome.status) == category


async def test_a_url_that_is_none(kit: Any) -> None:
    async with talk(kit, cloud={"url": "http://[x"}) as talking:
        assert (await talking.send("x")).failure.category == "caller"


async def test_a_proxy_for_the_endpoint() -> None:
    call = await bedrock("http://h", environment={"http_proxy": "http://127.0.0.1:8"}).call(b'{"model":"m"}')
    assert call.proxy == "http://127.0.0.1:8"


async def test_a_call_goes_through_the_proxy(kit: Any) -> None:
    async with Simulator() as proxy:
        where = {"url": "http://bedrock.invalid", "environment": {"http_proxy": proxy.url}}
        async with talk(kit, cloud=where) as talking:
            failure = (await talking.send("x")).failure
        assert (failure.category, failure.status) == ("caller", 404)  # the simulator is no proxy
        (record,) = proxy.requests
        target = "/model/us.anthropic.claude-sonnet-5-5/invoke-with-response-stream"
        assert record.path in (f"http://bedrock.invalid{target}", target)
        assert record.headers["host"] == "bedrock.invalid"


# -- what goes wrong

FAULTS: list[tuple[Any, str, int | None]] = [
    ("bad_request", "caller", 400),
    ("unauthorized", "auth", 401),
    ("payment_required", "quota", 402),
    ("forbidden", "auth", 403),
    ("not_found", "caller", 404),
    ("request_timeout", "overload", 408),
    ("too_large", "caller", 413),
    ("rate_limited", "throttle", 429),
    (Status(429, "ModelNotReadyException"), "overload", 429),
    (Status(400, "ServiceQuotaExceededException"), "quota", 400),
    (Status(429, message="Too many tokens per day"), "quota", 429),
    (Status(424, "ModelErrorException"), "overload", 424),
    ("server_error", "overload", 500),
    ("bad_gateway", "overload", 502),
    ("unavailable", "overload", 503),
    ("no_headers", "overload", None),
    ("headers_only", "overload", None),
    ("stall", "overload", None),
    ("pings_only", "overload", None),
    (Pings(every_ms=100), "overload", None),
    (Stall("after_block"), "overload", None),
    ("cut_before_headers", "overload", None),
    ("cut_after_headers", "overload", None),
    ("cut", "overload", None),
    ("reset", "overload", None),
    ("overloaded_event", "overload", 500),
    (StreamError("throttlingException", "slow down"), "throttle", 429),
    (StreamError("rate_limit_error", "slow down"), "throttle", 429),
    (StreamError("modelStreamErrorException", "broken"), "overload", 500),
    (StreamError("modelTimeoutException", "late"), "overload", 504),
    (StreamError("validationException", "no"), "caller", 400),
    (StreamError("accessDeniedException", "gone"), "auth", 403),
    (StreamError("serviceQuotaExceededException", "spent"), "quota", 402),
    (StreamError("somethingNewException", ""), "overload", 500),
    ("bad_json", "protocol", None),
    (Malformed("checksum"), "protocol", None),
]
SPANS = {"first_byte_timeout_s": 0.5, "idle_timeout_s": 0.4, "pings_timeout_s": 0.6}


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize(("fault", "category", "status"), FAULTS, ids=name_of)
async def test_one_call_one_class_in_time(kit: Any, fault: Any, category: str, status: int | None) -> None:
    spans = SPANS if status is None and category == "overload" else None  # only these wait for a deadline
    async with talk(kit, [Rule(reply=Reply(["this ", "and that"]), fault=fault)], spans=spans) as talking:
        outcome = await talking.send("go")
        assert outcome.status == "failed"
        assert (outcome.failure.category, outcome.failure.status) == (category, status)
        assert outcome.failure.message
        assert BEARER not in str(outcome.failure)
        assert len(talking.sim.messages) == 1


@pytest.mark.parametrize("fault", ["bad_sse", "bad_utf8", "lone_surrogate", "long_line"])
async def test_what_does_not_lose_the_turn(kit: Any, fault: str) -> None:
    async with talk(kit, [Rule(reply=Reply(["this ", "and that"]), fault=fault)]) as talking:
        outcome = await talking.send("go")
        assert (outcome.status, outcome.failure) == ("completed", None)
        assert outcome.text.startswith("this ")
        assert outcome.text.endswith("and that")


async def test_an_answer_of_another_kind(kit: Any) -> None:
    async with Simulator() as sim:
        cloud = bedrock(sim.url)
        cloud.content_type = "something/else"
        api = MessagesApi(api_key=lambda: None, cloud=cloud)
        run = await api.open(kit.spec(), kit.nobody)
        failure = (await run.send("x", "m", kit.Events())).failure
        assert failure is not None
        assert failure.category == "protocol"
        await api.close()


async def test_after_a_refused_credential_the_chain_is_asked_anew(
    kit: Any, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [Rule(fault=Status(403, "ExpiredTokenException"), times=1)]
    async with talk(kit, rules, cloud={"bearer": None}) as talking:
        failure = (await talking.send("x")).failure
        assert failure.category == "auth"
        assert "aws sso login" in failure.message
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEW")
        assert (await talking.send("y")).status == "completed"
        assert [record.used_key("AKIDNEW") for record in talking.sim.messages] == [False, True]


@pytest.mark.parametrize(
    ("name", "hint"), [("ExpiredTokenException", True), ("AccessDeniedException", False)]
)
async def test_a_refused_bearer_says_what_to_do(kit: Any, name: str, hint: bool) -> None:
    async with talk(kit, [Rule(fault=Status(403, name))]) as talking:
        failure = (await talking.send("x")).failure
        assert failure.category == "auth"
        assert ("AWS_BEARER_TOKEN_BEDROCK anew" in failure.message) == hint


# -- counting


async def test_tokens_are_counted_for_the_foundation_model(kit: Any) -> None:
    async with talk(kit) as talking:
        tokens, model = await talking.api.count_tokens(kit.spec(model="haiku", system_prompt="s"), "how long")
        assert tokens > 10
        assert model == "us.anthropic.claude-haiku-5-5"
        (record,) = talking.sim.requests
        assert (record.path, record.dialect.target) == (
            COUNT,
            "/model/anthropic.claude-haiku-5-5/count-tokens",
        )
        assert record.json()["messages"] == [{"role": "user", "content": "how long"}]


@pytest.mark.parametrize(
    ("fault", "category"),
    [
        (Status(400, message="The provided model doesn't support counting tokens"), "caller"),
        ("rate_limited", "throttle"),
        ("forbidden", "auth"),
    ],
)
async def test_counting_fails_as_a_turn_does(kit: Any, fault: Any, category: str) -> None:
    async with talk(kit, [Rule(When(path=COUNT), fault=fault)]) as talking:
        with pytest.raises(UpstreamError) as caught:
            await talking.api.count_tokens(kit.spec(), "x")
        assert caught.value.failure.category == category


async def test_a_count_that_is_none(kit: Any) -> None:
    async with talk(kit) as talking:
        talking.cloud.counted = lambda said: Bedrock.counted(talking.cloud, b'{"input_tokens": 3}')
        with pytest.raises(UpstreamError, match="did not count"):
            await talking.api.count_tokens(kit.spec(), "x")


# -- the same as the official SDK


async def test_url_and_body_are_those_of_the_official_sdk(kit: Any) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        headers = {"content-type": "application/vnd.amazon.eventstream"}
        return httpx2.Response(200, headers=headers, content=b"")

    async with Simulator() as sim:
        cloud = bedrock("")
        for model in ("us.anthropic.claude-opus-5-5", "anthropic.claude-x-v1:0", "arn:aws:b:r:1:p/us.x"):
            body = json.dumps({
                "model": model, "max_tokens": 5, "stream": True,
                "messages": [{"role": "user", "content": "é"}],
            }).encode()  # fmt: skip
            ours = await cloud.call(body, ("beta-1",))
            client = AnthropicBedrock(
                aws_region="us-east-1", api_key=BEARER,
                http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
            )  # fmt: skip
            with client:
                client.messages.create(
                    model=model, max_tokens=5, stream=True, messages=[{"role": "user", "content": "é"}],
                    extra_headers={"anthropic-beta": "beta-1"},
                ).close()  # fmt: skip
            theirs = asked.pop()
            assert ours.url == str(theirs.url)
            # Its own default is the newest version of the API; ours is the one that Amazon documents.
            assert json.loads(ours.body) == json.loads(theirs.content) | {"anthropic_version": VERSION}
            assert ours.headers["authorization"] == theirs.headers["authorization"]
        assert not sim.requests


@pytest.mark.parametrize("model", ["us.anthropic.claude-opus-5-5", "a.b-v1:0", "arn:aws:b:r:1:p/us.x"])
async def test_the_signature_is_the_official_sdks(
    keys: None, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    now = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    call = await bedrock(bearer=None).call(json.dumps({"model": model, "messages": []}).encode())
    added = {"authorization", "x-amz-date", "x-amz-security-token", "user-agent"}
    plain = {name: value for name, value in call.headers.items() if name.lower() not in added}
    theirs = get_auth_headers(
        method="POST", url=call.url, headers=httpx2.Headers(plain), data=call.body, region="us-east-1",
        aws_access_key=None, aws_secret_key=None, aws_session_token=None, profile=None,
        service_name="bedrock",
    )  # fmt: skip
    assert call.headers["Authorization"] == theirs["Authorization"]
    assert call.headers["X-Amz-Date"] == "20261125T120000Z"


# -- the stream


def chunk(data: bytes) -> bytes:
    payload = json.dumps({"bytes": base64.b64encode(data).decode(), "p": "abc"}).encode()
    return message({":message-type": "event", ":event-type": "chunk"}, payload)


def test_chunks_become_server_sent_events() -> None:
    delta = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}'
    spread = b'{"type":\r\n "message_stop"\n}'
    unknown = message({":message-type": "event", ":event-type": "new"}, b"?")
    failed = message(
        {":message-type": "error", ":error-code": "InternalFailure", ":error-message": "ouch"}, b""
    )
    error = b'{"type":"error","error":{"type":"api_error","message":"%b"}}'
    nameless = message({":message-type": "exception"}, b"{}")
    told = ChunkReader().feed(chunk(delta) + unknown + chunk(spread) + failed + nameless)
    assert told.split(b"\n\n") == [
        b"event: content_block_delta\ndata: " + delta,
        b'data: {"type":   "message_stop" }',
        b"event: error\ndata: " + error % b"InternalFailure: ouch",
        b"event: error\ndata: " + error % b"an error without a name",
        b"",
    ]


@pytest.mark.parametrize("payload", [b"", b"no", b'{"bytes": "not base64!"}', b'{"bytes": 3}', b"\xff"])
def test_a_chunk_that_is_none(payload: bytes) -> None:
    with pytest.raises(UnreadableError, match="chunk"):
        ChunkReader().feed(message({":message-type": "event", ":event-type": "chunk"}, payload))


def test_a_message_without_end_is_refused() -> None:
    whole = message({}, b"x" * (17 * 1024 * 1024))
    with pytest.raises(TooLongError):
        ChunkReader().feed(whole[:4096])


async def test_what_both_can_be_asked_for(kit: Any) -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    api = ApiOptions(cache="conversation", temperature=0.5)
    async with talk(kit, api=api, output_schema=schema, betas=("b-1",)) as talking:
        await talking.send("x")
        body = talking.sim.messages[0].json()
        assert body["output_config"]["format"]["schema"] == schema
        assert (body["temperature"], body["anthropic_beta"]) == (0.5, ["b-1"])
        assert body["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}
