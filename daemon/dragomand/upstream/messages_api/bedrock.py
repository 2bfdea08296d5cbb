"""Claude on Amazon Bedrock: where it is, how its requests are signed, how its stream is read.

Amazon's own library (botocore) finds and renews the credential and signs; it is loaded by the first call, in
a thread of its own. With a bearer token and a region it is not needed at all. URLs, bodies and signatures are
those of the official SDK's `AnthropicBedrock` client, which would cost 50 MB and a second more to load (a
test compares them).
"""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from dragoman_protocol.auth import CloudAuth

from dragomand.upstream.endpoint import proxy_for
from dragomand.upstream.interface import Failure, UpstreamError
from dragomand.upstream.messages_api import cloud_errors
from dragomand.upstream.messages_api.aws_access import SIGN_IN, AwsAccess, AwsChain
from dragomand.upstream.messages_api.cloud_body import Body, in_path
from dragomand.upstream.messages_api.cloud_model import bedrock_model, foundation_model
from dragomand.upstream.messages_api.endpoint import Call, CloudSettings
from dragomand.upstream.messages_api.event_stream import EventStreamDecoder, Message
from dragomand.upstream.messages_api.wire import UnreadableError

VERSION = "bedrock-2023-05-31"
BEARER = "AWS_BEARER_TOKEN_BEDROCK"
"""The variable that brings a Bedrock API key."""
RENEW = f"Set {BEARER} anew where the daemon is started and run `dragoman daemon restart`."
INLINE_BYTES = 256 * 1024
"""A longer body is hashed in a thread."""


class _Chunk(msgspec.Struct):
    data: bytes = msgspec.field(name="bytes", default=b"")  # Base64 on the wire


class _Counted(msgspec.Struct, rename="camel"):
    input_tokens: int


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_counted = msgspec.json.Decoder(_Counted).decode


class Bedrock:
    """Amazon Bedrock (`Endpoint`)."""

    content_type = "application/vnd.amazon.eventstream"

    def __init__(self, settings: CloudSettings) -> None:
        """Nothing is loaded or looked for yet."""
        self._settings = settings
        environment = settings.environment
        # A profile that somebody named in the settings is meant more than a variable that is there.
        self._bearer = None if settings.profile else environment.get(BEARER, "").strip() or None
        self._chain = AwsChain(settings, signs=self._bearer is None)
        self._proxies: dict[str, str | None] = {}

    async def call(self, body: bytes, betas: tuple[str, ...] = ()) -> Call:
        """Return the signed call of `InvokeModelWithResponseStream`; see `Endpoint.call`."""
        access = await self._access()
        fields = Body(body).without("stream").with_fields(anthropic_version=VERSION)
        if betas:
            fields.with_fields(anthropic_beta=betas)
        model = in_path(self._model(fields.model, access.region), ":")
        return await self._signed(access, f"/model/{model}/invoke-with-response-stream", fields.encode())

    async def count_call(self, body: bytes) -> Call:
        """Return the signed call of `CountTokens`, which knows foundation models, no inference profiles."""
        access = await self._access()
        fields = Body(body).with_fields(anthropic_version=VERSION, max_tokens=1)
        model = in_path(foundation_model(self._model(fields.model, access.region)), ":")
        asked = {"input": {"invokeModel": {"body": base64.b64encode(fields.encode()).decode()}}}
        return await self._signed(access, f"/model/{model}/count-tokens", msgspec.json.encode(asked))

    def counted(self, said: bytes) -> int:
        """Return the count; see `Endpoint.counted`."""
        return _decode_counted(said).input_tokens

    def reader(self) -> "ChunkReader":
        """Return a reader of the binary stream."""
        return ChunkReader()

    def failure(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
        """Return the failure; after one of the credential's, the chain is asked anew at the next call."""
        failure = cloud_errors.of_aws(status, headers, body, now)
        if failure.category != "auth":
            return failure
        self._chain.forget()
        if failure.message.startswith("AccessDenied"):
            return failure  # the credential is good, only not for this
        step = RENEW if self._bearer is not None else SIGN_IN
        return replace(failure, message=f"{failure.message.rstrip('.')}. {step}")

    def model(self, name: str) -> str:
        """Return Bedrock's id; see `Endpoint.model`."""
        return self._model(name, self._chain.region or "")

    def status(self) -> CloudAuth:
        """Return what is known; see `Endpoint.status`."""
        if self._bearer is not None:
            region = self._chain.region
            return CloudAuth(provider="bedrock", state="found", source=BEARER, region=region)
        return self._chain.status()

    async def _access(self) -> AwsAccess:
        bearer = self._bearer
        if bearer is not None and not (bearer.isascii() and bearer.isprintable()):
            text = f"{BEARER} has characters that no header may have: set it anew and restart the daemon."
            raise UpstreamError(Failure("auth", text))
        return await self._chain.access()

    def _model(self, name: str, region: str) -> str:
        return bedrock_model(name, self._settings.model_prefix, region, self._settings.environment)

    async def _signed(self, access: AwsAccess, path: str, body: bytes) -> Call:
        url = access.url + path
        headers = {"content-type": "application/json", "accept": "application/json", "user-agent": "dragoman"}
        if self._bearer is not None:
            headers["authorization"] = f"Bearer {self._bearer}"
        elif len(body) > INLINE_BYTES:
            headers = await asyncio.to_thread(sign, access, url, headers, body)
        else:
            headers = sign(access, url, headers, body)
        return Call(url, headers, body, self._proxy(access.url))

    def _proxy(self, url: str) -> str | None:
        if url not in self._proxies:
            self._proxies[url] = proxy_for(url, self._settings.environment)
        return self._proxies[url]


def sign(access: AwsAccess, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    """Return *headers* with the signature (Signature Version 4) of this request."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    agent = headers["user-agent"]  # a proxy may change it: it is not signed
    signed = {name: value for name, value in headers.items() if name != "user-agent"}
    request = AWSRequest(method="POST", url=url, headers=signed, data=body)
    SigV4Auth(access.keys, "bedrock", access.region).add_auth(request)
    return {**{str(name): str(value) for name, value in request.headers.items()}, "user-agent": agent}


class ChunkReader:
    """Bedrock's stream as the server-sent events that the API itself would write (`StreamReader`)."""

    def __init__(self) -> None:
        """Wait for the first chunk."""
        self._decoder = EventStreamDecoder()

    @property
    def holds(self) -> bool:
        """A chunk is never an event as it stands."""
        return True

    def feed(self, chunk: bytes) -> bytes:
        """Return the events that *chunk* completes; see `StreamReader.feed`."""
        return b"".join(map(_event, self._decoder.feed(chunk)))


def _event(message: Message) -> bytes:
    headers, payload = message
    kind = headers.get(":message-type")
    if kind == "event":
        return _chunk(payload) if headers.get(":event-type") == "chunk" else b""
    name: Any = headers.get(":exception-type") or headers.get(":error-code") or "an error without a name"
    words = payload
    if kind == "error":
        words = msgspec.json.encode({"message": str(headers.get(":error-message", ""))})
    return cloud_errors.error_event(str(name), words)


def _chunk(payload: bytes) -> bytes:
    try:
        data = _decode_chunk(payload).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
        raise UnreadableError(f"a chunk of Bedrock's stream is not what it promises: {wrong}") from None
    if b"\n" in data or b"\r" in data:  # between JSON's parts; in a server-sent event it would end the line
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    if data.startswith(b'{"type":"content_block_delta"'):
        return b"event: content_block_delta\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"
