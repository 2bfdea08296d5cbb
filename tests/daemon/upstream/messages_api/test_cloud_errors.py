"""The clouds' own words become the same classes as Anthropic's."""

import json
from typing import Any

import pytest
from dragomand.upstream.messages_api.cloud_errors import error_event, of_aws, of_google
from dragomand.upstream.messages_api.wire import ErrorEvent, decode

AWS: list[tuple[int, str, str, str]] = [
    # status, name, words, class
    (429, "ThrottlingException", "Too many requests, please wait before trying again.", "throttle"),
    (429, "ThrottlingException", "Too many tokens per day, please wait before trying again.", "quota"),
    (429, "TooManyRequestsException", "", "throttle"),
    (429, "ModelNotReadyException", "The model is not ready.", "overload"),
    (400, "ServiceQuotaExceededException", "over your quota", "quota"),
    (403, "AccessDeniedException", "You don't have access to the model.", "auth"),
    (403, "UnrecognizedClientException", "The security token is invalid.", "auth"),
    (403, "ExpiredTokenException", "The security token has expired", "auth"),
    (403, "InvalidSignatureException", "", "auth"),
    (400, "IncompleteSignature", "", "auth"),
    (403, "MissingAuthenticationTokenException", "", "auth"),
    (400, "ValidationException", "The provided model identifier is invalid.", "caller"),
    (404, "ResourceNotFoundException", "", "caller"),
    (408, "ModelTimeoutException", "", "overload"),
    (424, "ModelErrorException", "", "overload"),
    (424, "ModelStreamErrorException", "", "overload"),
    (500, "InternalServerException", "", "overload"),
    (503, "ServiceUnavailableException", "", "overload"),
    (418, "SomethingNewException", "", "caller"),
    (599, "SomethingNewException", "", "overload"),
    (401, "", "", "auth"),
]


@pytest.mark.parametrize(("status", "name", "words", "category"), AWS)
@pytest.mark.parametrize("where", ["header", "body", "namespaced"])
def test_amazons_errors(status: int, name: str, words: str, category: str, where: str) -> None:
    headers = {"x-amzn-requestid": "r-1", "retry-after": "3"}
    body: dict[str, Any] = {"message": words}
    if where == "header":
        headers["x-amzn-errortype"] = f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    elif where == "body":
        body = {"__type": name, "Message": words}
    else:
        body["__type"] = f"com.amazon.coral.service#{name}"
    failure = of_aws(status, headers, json.dumps(body).encode(), 100.0)
    assert (failure.category, failure.status, failure.detail) == (category, status, "r-1")
    assert failure.message == (": ".join(part for part in (name, words) if part) or
                               f"Amazon Bedrock answered with HTTP status {status}.")  # fmt: skip
    assert failure.retry_after_ms == (3000 if category in ("throttle", "overload") else None)
    assert failure.resets_at == (103.0 if category == "quota" else None)


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff", b"[" * 5000, b'{"message": 3}'])
def test_a_body_that_is_not_amazons(body: bytes) -> None:
    failure = of_aws(502, {}, body, 0.0)
    assert (failure.category, failure.message) == (
        "overload",
        "Amazon Bedrock answered with HTTP status 502.",
    )


@pytest.mark.parametrize(
    ("name", "words", "kind"),
    [
        ("throttlingException", "slow down", "rate_limit_error"),
        ("throttlingException", "tokens per day", "billing_error"),
        ("validationException", "no", "invalid_request_error"),
        ("accessDeniedException", "no", "permission_error"),
        ("modelTimeoutException", "late", "timeout_error"),
        ("modelStreamErrorException", "broken", "api_error"),
        ("internalServerException", "broken", "api_error"),
        ("serviceUnavailableException", "gone", "api_error"),
        ("somethingNewException", "new", "api_error"),
    ],
)
def test_an_exception_in_the_stream(name: str, words: str, kind: str) -> None:
    event = decode(error_event(name, json.dumps({"message": words}).encode()).split(b"data: ")[1].strip())
    assert isinstance(event, ErrorEvent)
    assert (event.error.type, event.error.message) == (kind, f"{name}: {words}")


def test_an_exception_whose_words_are_no_json() -> None:
    assert b'"message":"internalServerException"' in error_event("internalServerException", b"\xff")


def google(code: int, status: str, message: str = "m", **details: Any) -> bytes:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = [details]
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    ("status", "body", "category", "message"),
    [
        (400, google(400, "INVALID_ARGUMENT"), "caller", "INVALID_ARGUMENT: m"),
        (400, google(400, "FAILED_PRECONDITION"), "caller", "FAILED_PRECONDITION: m"),
        (401, google(401, "UNAUTHENTICATED"), "auth", "UNAUTHENTICATED: m"),
        (403, google(403, "PERMISSION_DENIED"), "auth", "PERMISSION_DENIED: m"),
        (403, google(403, "PERMISSION_DENIED", reason="BILLING_DISABLED"), "quota", "PERMISSION_DENIED: m"),
        (404, google(404, "NOT_FOUND"), "caller", "NOT_FOUND: m"),
        (429, google(429, "RESOURCE_EXHAUSTED"), "throttle", "RESOURCE_EXHAUSTED: m"),
        (429, google(429, "RESOURCE_EXHAUSTED", "x per day"), "quota", "RESOURCE_EXHAUSTED: x per day"),
        (500, google(500, "INTERNAL"), "overload", "INTERNAL: m"),
        (503, google(503, "UNAVAILABLE"), "overload", "UNAVAILABLE: m"),
        (504, google(504, "DEADLINE_EXCEEDED"), "overload", "DEADLINE_EXCEEDED: m"),
        (429, b"[" + google(429, "RESOURCE_EXHAUSTED") + b"]", "throttle", "RESOURCE_EXHAUSTED: m"),
        (529, b'{"type":"error","error":{"type":"overloaded_error","message":"O"}}', "overload",
         "overloaded_error: O"),
        (502, b"<html>", "overload", "Vertex AI answered with HTTP status 502."),
        (500, b"[]", "overload", "Vertex AI answered with HTTP status 500."),
    ],
)  # fmt: skip
def test_googles_errors(status: int, body: bytes, category: str, message: str) -> None:
    failure = of_google(status, {"request-id": "r"}, body, 0.0)
    assert (failure.category, failure.status, failure.message) == (category, status, message)
    assert failure.detail == "r"
    assert failure.retry_after_ms is None


@pytest.mark.parametrize(
    ("delay", "headers", "pause"),
    [
        ("7s", {}, 7000),
        ("0.250s", {}, 250),
        ("7s", {"retry-after": "2"}, 2000),
        ("soon", {}, None),
    ],
)
def test_the_pause_that_google_asks_for(delay: str, headers: dict[str, str], pause: int | None) -> None:
    body = google(429, "RESOURCE_EXHAUSTED", retryDelay=delay)
    assert of_google(429, headers, body, 0.0).retry_after_ms == pause
    assert of_google(400, headers, body, 0.0).retry_after_ms is None


def test_a_pause_of_more_than_a_day_is_a_quota() -> None:
    failure = of_google(429, {}, google(429, "RESOURCE_EXHAUSTED", retryDelay="90000s"), 100.0)
    assert (failure.category, failure.retry_after_ms, failure.resets_at) == ("quota", None, 90_100.0)
