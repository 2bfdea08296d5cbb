"""What a simulator remembers of the requests it got, without their secrets."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from dragoman_sim.clouds import Dialect
from dragoman_sim.conversation import Conversation, InvalidRequestError
from dragoman_sim.http import HttpRequest

MAX_RECORDS = 20_000
MAX_BODY_BYTES = 64 * 1024 * 1024
_SIGNATURE = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/, ]+)/\d{8}/([a-z0-9-]+/[a-z0-9-]+)/aws4_request,")
_SECRET = ("x-api-key", "authorization", "proxy-authorization", "cookie", "x-amz-security-token")

Outcome = Literal["answering", "answered", "cut", "abandoned"]
"""`answering`: not at its end · `answered`: whole, errors included · `cut`: broken off as the script says ·
`abandoned`: the client went away before the end."""


def digest(secret: str) -> str:
    """Return the SHA-256 of *secret* in hex: how records name a credential."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(slots=True, eq=False)
class Record:
    """One request."""

    number: int
    """From 1, in the order of arrival, over all endpoints."""
    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Names in lower case; of secrets only the fact that they were there (`…`)."""
    body: bytes
    at: float
    """Seconds since the simulator's start."""
    credential: Literal["x-api-key", "authorization", "signature"] | None = None
    """Which header brought the credential; `signature`: Amazon's, whose credential is the access key's id."""
    credential_digest: str | None = None
    outcome: Outcome = "answering"
    status: int | None = None
    message_number: int | None = None
    """From 1, over the requests to `/v1/messages` alone."""
    rule: int | None = None
    """The index of the rule that answered; None: the default."""
    dialect: Dialect | None = None
    """Of the cloud that was asked; `path` and `body` are then those of the Messages API."""
    signed_for: str | None = None
    """`REGION/SERVICE` of an Amazon signature."""

    @property
    def user_agent(self) -> str:
        """The user agent; Claude Code's begins with `claude-cli/`."""
        return self.headers.get("user-agent", "")

    @property
    def from_claude_code(self) -> bool:
        """Whether the request has the marks of the real Claude Code CLI."""
        return self.user_agent.startswith("claude-cli/") and self.headers.get("x-app") == "cli"

    @property
    def claude_session_id(self) -> str | None:
        """Claude Code's own session id, which it puts in a header."""
        return self.headers.get("x-claude-code-session-id")

    def used_key(self, key: str) -> bool:
        """Return whether the request brought *key*, in either header."""
        return self.credential_digest == digest(key)

    def json(self) -> Any:
        """Return the decoded body."""
        return msgspec.json.decode(self.body)

    @property
    def conversation(self) -> Conversation:
        """The body as a conversation; only for requests to `/v1/messages` and `count_tokens`."""
        return Conversation(self.body, needs_max_tokens=False)

    @property
    def prompt(self) -> str:
        """The last text that a person wrote; empty where there is no conversation."""
        try:
            return self.conversation.prompt
        except InvalidRequestError:
            return ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything that is known of the request; a body that is no JSON as text."""
        try:
            body: Any = msgspec.Raw(msgspec.json.encode(self.json()))
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = self.body.decode(errors="replace")
        names = (
            "number", "message_number", "method", "path", "query", "headers", "at", "credential",
            "credential_digest", "outcome", "status", "rule", "from_claude_code", "claude_session_id",
            "signed_for",
        )  # fmt: skip
        dialect = self.dialect
        provider, target = (None, self.path) if dialect is None else (dialect.provider, dialect.target)
        asked = {"provider": provider, "target": target}
        return {**{name: getattr(self, name) for name in names}, **asked, "body": body}


Condition = Callable[[Record], bool]


@dataclass(slots=True)
class Log:
    """The records, oldest first, within bounds: beyond them the oldest are forgotten."""

    records: deque[Record] = field(default_factory=deque)
    total: int = 0
    messages: int = 0
    """How many requests to `/v1/messages` there were."""
    _bytes: int = 0
    _waiting: list[tuple[Condition, asyncio.Future[Record]]] = field(default_factory=list)

    def add(self, request: HttpRequest, at: float, dialect: Dialect | None = None) -> Record:
        """Remember *request* and wake who waits for it; *dialect* is that of the cloud that was asked."""
        self.total += 1
        headers = dict(request.headers)
        kind, secret = _credential(headers)
        signature = _SIGNATURE.match(headers.get("authorization", ""))
        if signature is not None:
            kind, secret = "signature", signature[1]
        for name in _SECRET:
            if name in headers:
                headers[name] = "…"
        record = Record(
            self.total, request.method, request.path, request.query, headers, request.body, at,
            kind, digest(secret) if secret else None, dialect=dialect,
            signed_for=signature[2] if signature is not None else None,
        )  # fmt: skip
        if request.path == "/v1/messages":
            self.messages += 1
            record.message_number = self.messages
        self.records.append(record)
        self._bytes += len(record.body)
        while len(self.records) > MAX_RECORDS or (self._bytes > MAX_BODY_BYTES and len(self.records) > 1):
            self._bytes -= len(self.records.popleft().body)
        self.tell(record)
        return record

    def end(self, record: Record, outcome: Outcome) -> None:
        """Note how the answer ended, once, and wake who waits for it."""
        if record.outcome == "answering":
            record.outcome = outcome
            self.tell(record)

    def tell(self, record: Record) -> None:
        """Let who waits look at *record*, which is new or has changed."""
        if not self._waiting:
            return
        for condition, future in self._waiting:
            if future.done():
                continue
            try:
                if condition(record):
                    future.set_result(record)
            except Exception as wrong:  # noqa: BLE001  # the condition is its caller's, and so is its error
                future.set_exception(wrong)
        self._waiting = [entry for entry in self._waiting if not entry[1].done()]

    async def wait_for(self, condition: Condition, deadline_s: float, what: str) -> Record:
        """Return the first record that meets *condition*, now or later. Raises `TimeoutError`."""
        for record in self.records:
            if condition(record):
                return record
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        try:
            async with asyncio.timeout(deadline_s):
                return await future
        except TimeoutError:
            seen = [f"{r.method} {r.path} ({r.outcome}, {r.status})" for r in self.records]
            raise TimeoutError(
                f"Expected {what} within {deadline_s:g} s; there were {len(seen)} requests: {seen[-20:]}"
            ) from None
        finally:
            future.cancel()
            self._waiting = [entry for entry in self._waiting if entry[1] is not future]


def _credential(
    headers: dict[str, str],
) -> tuple[Literal["x-api-key", "authorization", "signature"] | None, str]:
    if key := headers.get("x-api-key"):
        return "x-api-key", key
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return "authorization", token
    return None, ""
