"""Claude on Google's Vertex AI, against the simulator and the official SDK."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import AnthropicVertex
from dragoman_protocol.stream import TextDelta
from dragoman_sim import Gate, Reply, Rule, Simulator, Stall, Status, StreamError, When
from dragomand.upstream.interface import UpstreamError
from dragomand.upstream.messages_api import CloudSettings, DirectSettings, MessagesApi
from dragomand.upstream.messages_api.vertex import VERSION, Vertex

TOKEN = "ya29.made-up"
DEADLINE_S = 20.0
COUNT = "/v1/messages/count_tokens"
SPANS = {"first_byte_timeout_s": 0.5, "idle_timeout_s": 0.4, "pings_timeout_s": 0.6}


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch, no_cloud: Path, credential_server: Any) -> Any:
    """A person's credential, whose token service gives out what it is told to."""
    file = no_cloud / "adc.json"
    file.write_text(json.dumps({
        "type": "authorized_user", "client_id": "c", "client_secret": "made-up", "refresh_token": "made-up",
    }))  # fmt: skip
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", credential_server.url)
    credential_server.answers = [(200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})]
    return credential_server


def vertex(url: str = "", **settings: Any) -> Vertex:
    return Vertex(CloudSettings(**{"region": "us-east5", "project": "p-1", "url": url, **settings}))


class Talk:
    def __init__(self, sim: Simulator, api: MessagesApi, cloud: Vertex, run: Any, kit: Any) -> None:
        self.sim, self.api, self.cloud, self.run = sim, api, cloud, run
        self.events = kit.Events()

    async def send(self, prompt: Any) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            return await self.run.send(prompt, "m", self.events)


@asynccontextmanager
async def talk(kit: Any, rules: Any = (), *, spans: Any = None, **choices: Any) -> AsyncIterator[Talk]:
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator(rules))
        cloud = vertex(sim.url + "/v1")
        api = MessagesApi(api_key=lambda: None, settings=DirectSettings(**(spans or {})), cloud=cloud)
        stack.push_async_callback(api.close)
        yield Talk(sim, api, cloud, await api.open(kit.spec(**choices), kit.nobody), kit)


async def test_a_turn(kit: Any, tokens: Any) -> None:
    async with talk(kit, [Rule(reply=Reply(["half ", Gate("g"), "and half"]))], model="opus") as talking:
        turn = asyncio.create_task(talking.send("x"))
        assert (await talking.events.wait_for(TextDelta)).text == "half "
        await talking.sim.gate("g").open()
        outcome = await turn
        assert (outcome.status, outcome.text, outcome.model) == (
            "completed",
            "half and half",
            "claude-opus-5-5",
        )
        assert outcome.cost_usd > 0
        (record,) = talking.sim.messages
        assert record.dialect.target == (
            "/v1/projects/p-1/locations/us-east5/publishers/anthropic/models/claude-opus-5-5:streamRawPredict"
        )
        assert record.used_key(TOKEN)
        assert (record.json()["anthropic_version"], record.json()["stream"]) == (VERSION, True)
        status = talking.cloud.status()
        assert (status.provider, status.state, status.project) == ("vertex", "found", "p-1")


async def test_many_turns_share_one_token(kit: Any, tokens: Any) -> None:
    async with talk(kit) as talking:
        runs = [await talking.api.open(kit.spec(), kit.nobody) for _ in range(10)]
        outcomes = await asyncio.gather(*(run.send("x", "m", kit.Events()) for run in runs))
        assert {outcome.text for outcome in outcomes} == {"You said: x"}
        assert tokens.asked == 1


async def test_a_turn_that_waits_for_a_token_is_broken_off(kit: Any, tokens: Any) -> None:
    tokens.open.clear()
    async with talk(kit) as talking:
        turn = asyncio.create_task(talking.send("x"))
        async with asyncio.timeout(DEADLINE_S):
            await tokens.waiting.wait()
        assert await talking.run.interrupt()
        assert (await turn).status == "interrupted"
        tokens.open.set()
        assert (await talking.send("y")).text == "You said: y"
        assert tokens.asked == 1


async def test_a_schema_stays_in_words(kit: Any, tokens: Any) -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    async with talk(kit, output_schema=schema, append_system_prompt="as JSON", betas=("a", "b")) as talking:
        await talking.send("x")
        (record,) = talking.sim.messages
        assert "output_config" not in record.json()
        assert record.json()["system"] == "as JSON"
        assert record.headers["anthropic-beta"] == "a,b"


async def test_no_credential_ends_the_turn_with_what_to_do(kit: Any, no_cloud: Path) -> None:
    async with talk(kit) as talking:
        failure = (await talking.send("x")).failure
        assert failure.category == "auth"
        assert "gcloud auth application-default login" in failure.message
        assert not talking.sim.requests


FAULTS: list[tuple[Any, str, int | None]] = [
    ("bad_request", "caller", 400),
    ("unauthorized", "auth", 401),
    ("forbidden", "auth", 403),
    ("not_found", "caller", 404),
    ("too_large", "caller", 413),
    ("rate_limited", "throttle", 429),
    (Status(429, message="Quota exceeded per day"), "quota", 429),
    ("server_error", "overload", 500),
    ("bad_gateway", "overload", 502),
    ("unavailable", "overload", 503),
    ("overloaded", "overload", 529),
    ("overloaded_event", "overload", 529),
    (StreamError("rate_limit_error", "slow down"), "throttle", 429),
    ("stall", "overload", None),
    (Stall("before_headers"), "overload", None),
    ("cut", "overload", None),
    ("reset", "overload", None),
    ("bad_json", "protocol", None),
]


@pytest.mark.parametrize(("fault", "category", "status"), FAULTS, ids=lambda value: str(value)[:20])
async def test_one_call_one_class(
    kit: Any, tokens: Any, fault: Any, category: str, status: int | None
) -> None:
    rules = [Rule(When(text="go"), Reply(["this ", "and that"]), fault=fault)]
    spans = SPANS if status is None and category == "overload" else None
    async with talk(kit, rules, spans=spans) as talking:
        if spans:
            await talking.cloud.call(b'{"model": "m"}')  # the library is loaded before the clock runs
        outcome = await talking.send("go")
        assert (outcome.status, outcome.failure.category) == ("failed", category)
        assert outcome.failure.status == status
        assert TOKEN not in str(outcome.failure)
        assert len(talking.sim.messages) == 1


async def test_a_refused_token_is_not_used_again(kit: Any, tokens: Any) -> None:
    tokens.answers += [(200, {"access_token": "ya29.new", "expires_in": 3600, "token_type": "Bearer"})]
    async with talk(kit, [Rule(fault="unauthorized", times=1), Rule(fault="forbidden", times=1)]) as talking:
        for _ in range(3):
            await talking.send("x")
        used = [record.used_key("ya29.new") for record in talking.sim.messages]
        assert used == [False, True, True]  # 403 says nothing of the token


async def test_tokens_are_counted(kit: Any, tokens: Any) -> None:
    async with talk(kit) as talking:
        count, model = await talking.api.count_tokens(kit.spec(model="haiku"), "how long")
        assert (count > 5, model) == (True, "claude-haiku-5-5")
        (record,) = talking.sim.requests
        assert record.dialect.target == (
            "/v1/projects/p-1/locations/us-east5/publishers/anthropic/models/count-tokens:rawPredict"
        )
        assert record.json()["model"] == "claude-haiku-5-5"


async def test_counting_fails_as_a_turn_does(kit: Any, tokens: Any) -> None:
    async with talk(kit, [Rule(When(path=COUNT), fault="rate_limited")]) as talking:
        with pytest.raises(UpstreamError) as caught:
            await talking.api.count_tokens(kit.spec(), "x")
        assert caught.value.failure.category == "throttle"


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-1@20250805", "a;b", "a/b"])
@pytest.mark.parametrize("region", ["us-east5", "global", "us", "eu"])
async def test_url_and_body_are_those_of_the_official_sdk(tokens: Any, model: str, region: str) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=b"")

    client = AnthropicVertex(
        region=region, project_id="p-1", access_token=TOKEN,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )  # fmt: skip
    given: Any = {"model": model, "messages": [{"role": "user", "content": "é"}]}
    with client:
        client.messages.create(**given, max_tokens=5, stream=True).close()
        client.messages.count_tokens(**given)
    cloud = vertex(region=region)
    turn = await cloud.call(json.dumps({**given, "max_tokens": 5, "stream": True}).encode())
    count = await cloud.count_call(json.dumps(given).encode())
    for ours, theirs in zip((turn, count), asked, strict=True):
        assert ours.url == str(theirs.url)
        # Its own default is the newest version of the API; ours is the one that Google documents.
        assert json.loads(ours.body) == json.loads(theirs.content) | {"anthropic_version": VERSION}
        assert ours.headers["authorization"] == theirs.headers["authorization"]
