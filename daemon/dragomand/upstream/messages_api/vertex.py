"""Claude on Google's Vertex AI: where it is and with what token it is asked. Its stream is the API's own.

Google's own library (google-auth) finds and renews the token; it is loaded by the first call, in a thread of
its own. URLs and bodies are those of the official SDK's `AnthropicVertex` client, which would cost 50 MB and
a second more to load (a test compares them).
"""

from collections.abc import Mapping
from dataclasses import replace

import msgspec
from dragoman_protocol.auth import CloudAuth

from dragomand.upstream.endpoint import proxy_for
from dragomand.upstream.interface import Failure
from dragomand.upstream.messages_api import cloud_errors
from dragomand.upstream.messages_api.cloud_body import Body, in_path
from dragomand.upstream.messages_api.cloud_model import vertex_model
from dragomand.upstream.messages_api.endpoint import Call, CloudSettings
from dragomand.upstream.messages_api.google_access import SIGN_IN, GoogleAccess, GoogleChain
from dragomand.upstream.messages_api.sse import EventReader

VERSION = "vertex-2023-10-16"


class _Counted(msgspec.Struct):
    input_tokens: int


_decode_counted = msgspec.json.Decoder(_Counted).decode


class Vertex:
    """Google's Vertex AI (`Endpoint`)."""

    content_type = "text/event-stream"

    def __init__(self, settings: CloudSettings) -> None:
        """Nothing is loaded or looked for yet."""
        self._settings = settings
        self._chain = GoogleChain(settings)
        self._proxy = proxy_for(self._chain.url, settings.environment)

    async def call(self, body: bytes, betas: tuple[str, ...] = ()) -> Call:
        """Return the call of `streamRawPredict`; see `Endpoint.call`.

        The schema of an answer is left out: holding the model to it is off there unless an organisation
        allows it. The system prompt has it in any case, and the answer is checked.
        """
        access = await self._chain.access()
        fields = Body(body).without("output_config").with_fields(anthropic_version=VERSION)
        model = in_path(self.model(fields.model), "@")
        call = self._call(access, f"{model}:streamRawPredict", fields.encode())
        if betas:
            call.headers["anthropic-beta"] = ",".join(betas)
        return call

    async def count_call(self, body: bytes) -> Call:
        """Return the call of `count-tokens`; here the model is in the body."""
        access = await self._chain.access()
        fields = Body(body)
        fields.with_fields(anthropic_version=VERSION, model=self.model(fields.model))
        return self._call(access, "count-tokens:rawPredict", fields.encode())

    def counted(self, said: bytes) -> int:
        """Return the count; see `Endpoint.counted`."""
        return _decode_counted(said).input_tokens

    def reader(self) -> EventReader:
        """Return a reader of server-sent events."""
        return EventReader()

    def failure(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
        """Return the failure; after one of the credential's, the chain is asked anew at the next call."""
        failure = cloud_errors.of_google(status, headers, body, now)
        if status != 401:
            return failure
        self._chain.forget()
        return replace(failure, message=f"{failure.message.rstrip('.')}. {SIGN_IN}")

    def model(self, name: str) -> str:
        """Return Vertex AI's id; see `Endpoint.model`."""
        return vertex_model(name, self._settings.environment)

    def status(self) -> CloudAuth:
        """Return what is known; see `Endpoint.status`."""
        return self._chain.status()

    def _call(self, access: GoogleAccess, what: str, body: bytes) -> Call:
        place = f"projects/{in_path(access.project)}/locations/{in_path(self._chain.region or '')}"
        headers = {
            "authorization": f"Bearer {access.holder.token}",
            "content-type": "application/json",
            "user-agent": "dragoman",
        }
        url = f"{self._chain.url}/{place}/publishers/anthropic/models/{what}"
        return Call(url, headers, body, self._proxy)
