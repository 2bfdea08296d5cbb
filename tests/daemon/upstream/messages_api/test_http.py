"""Answers taken apart however they are cut, and what is no answer refused."""

from collections.abc import Mapping

import pytest
from dragomand.upstream.messages_api.http import (
    MAX_HEAD,
    MAX_LINE,
    MAX_TRAILERS,
    BadAnswerError,
    HttpAnswer,
    request_head,
)
from hypothesis import given
from hypothesis import strategies as st

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Got:
    """What an answer told."""

    def __init__(self) -> None:
        self.heads: list[tuple[int, Mapping[str, str]]] = []
        self.body = b""
        self.answer = HttpAnswer(lambda status, headers: self.heads.append((status, headers)), self.add)

    def add(self, data: bytes) -> None:
        assert data, "nothing is told as nothing"
        self.body += data

    def feed(self, *pieces: bytes) -> "Got":
        for piece in pieces:
            self.answer.feed(piece)
        return self

    @property
    def end(self) -> tuple[bool, bool]:
        return self.answer.complete, self.answer.keep


def chunked(*parts: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + last


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """The bytes of an answer, its body, and whether the connection can be kept."""
    parts = draw(st.lists(st.binary(min_size=1, max_size=40) | st.just(b"\r\n0\r\n\r\n"), max_size=5))
    body = b"".join(parts)
    close = draw(st.booleans())
    head = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"])) + b"HTTP/1.1 200 OK\r\nX: y\r\n"
    head += b"connection: x, Close\r\n" if close else b""
    if draw(st.booleans()):
        extension = draw(st.sampled_from([b"", b";a=b"]))
        last = draw(st.sampled_from([b"0\r\n\r\n", b"000\r\nTrailer: x\r\n\r\n"]))
        said = b"".join(b"%X%s\r\n%s\r\n" % (len(part), extension, part) for part in parts) + last
        return head + b"Transfer-Encoding: Chunked\r\n\r\n" + said, body, not close
    return head + b"content-length: %d\r\n\r\n" % len(body) + body, body, not close


@given(answers(), st.lists(st.integers(0, 400), max_size=8))
def test_it_makes_no_difference_how_an_answer_is_cut(
    answer: tuple[bytes, bytes, bool], cuts: list[int]
) -> None:
    whole, body, keep = answer
    got = Got()
    at = 0
    for cut in [*sorted(cut for cut in cuts if cut < len(whole)), len(whole)]:
        got.feed(whole[at:cut])
        at = cut
    assert (got.body, got.end) == (body, (True, keep))
    assert [(status, headers["x"]) for status, headers in got.heads] == [(200, "y")]
    got.answer.end()  # complete: the connection's end is no loss


@given(answers(), st.integers(1, 400))
def test_one_that_ends_early_is_not_complete(answer: tuple[bytes, bytes, bool], missing: int) -> None:
    whole, _, _ = answer
    got = Got().feed(whole[:-missing])
    assert not got.answer.complete
    with pytest.raises(EOFError, match="ended"):
        got.answer.end()


def test_without_a_length_the_connection_s_end_is_the_body_s() -> None:
    got = Got().feed(b"HTTP/1.1 200 OK\r\n\r\n", b"all ", b"of it")
    assert (got.body, got.end) == (b"all of it", (False, False))
    got.answer.end()
    assert got.answer.complete


def test_an_older_server_s_connection_is_not_kept() -> None:
    assert Got().feed(b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx").end == (True, False)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_what_has_no_body(status: bytes) -> None:
    got = Got().feed(b"HTTP/1.1 " + status + b"\r\n\r\n")
    assert (got.end, got.body) == ((True, True), b"")


@pytest.mark.parametrize("whole", [CHUNKED + chunked(b"x"), b"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\nx"])
def test_a_connection_that_says_more_is_not_kept(whole: bytes) -> None:
    assert Got().feed(whole).end == (True, True)
    assert Got().feed(whole + b"HTTP/1.1 200 OK").end == (True, False)


def test_headers_of_one_name_are_one() -> None:
    got = Got().feed(b"HTTP/1.1 200 OK\r\nA:  b \r\na: c\r\nContent-Length: 0\r\nE: \xe9\r\n\r\n")
    assert got.heads == [(200, {"a": "b, c", "content-length": "0", "e": "\xe9"})]
    assert got.answer.complete


@pytest.mark.parametrize(
    "wrong",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 999 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"x" * MAX_HEAD + b"\r\n\r\n",
        b"x" * (MAX_HEAD + 1),
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"1\r\nxx\r\n",
        CHUNKED + b"1" * (MAX_LINE + 1),
        CHUNKED + b"0\r\n" + b"a: b\r\n" * MAX_TRAILERS,
    ],
)
def test_what_is_no_answer_is_refused(wrong: bytes) -> None:
    with pytest.raises(BadAnswerError):
        Got().feed(wrong)


def test_a_request_s_head() -> None:
    head = request_head("POST", "/v1?x", "host:1", {"x-api-key": "k"}, 3)
    assert head == b"POST /v1?x HTTP/1.1\r\nhost: host:1\r\ncontent-length: 3\r\nx-api-key: k\r\n\r\n"


@pytest.mark.parametrize("key", ["a\r\nx: y", "a\n", "a\r", "a\0"])
def test_a_header_with_a_line_break_is_not_sent(key: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head("POST", "/", "h", {"x-api-key": key}, 0)
