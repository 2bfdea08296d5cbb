"""What is not asked again in a turn, and what is."""

from typing import Any

import msgspec
import pytest
from dragomand.gateway import refusals as module
from dragomand.gateway.refusals import Question, Refusals, Refused
from dragomand.upstream.failures import of_response

TURN = ("grant", "turn", b"key")


def question(
    model: str = "opus", words: str = "hi", betas: str = "a,b", target: str = "/v1/messages"
) -> Question:
    return Question(target, betas, msgspec.json.encode({"model": model, "messages": words}))


def refused(status: int, message: str = "No.") -> Refused:
    body = msgspec.json.encode({"error": {"type": "x", "message": message}})
    return Refused(status, {}, body, of_response(status, {}, body, 0.0))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


ANOTHER_WORD, ANOTHER_MODEL = {"words": "ho"}, {"model": "haiku"}
FEWER_BETAS, COUNTING = {"betas": "a"}, {"target": "/v1/messages/count_tokens"}


@pytest.mark.parametrize(
    ("given", "not_asked", "asked"),
    [
        pytest.param(refused(401), [{}, ANOTHER_MODEL, COUNTING], [], id="the key"),
        pytest.param(refused(402), [{}, ANOTHER_MODEL, COUNTING], [], id="the account"),
        pytest.param(refused(400, "specified API usage limits"), [{}, ANOTHER_MODEL], [], id="its limit"),
        pytest.param(refused(429, "spend limit"), [{}, ANOTHER_MODEL, COUNTING], [], id="its cap"),
        pytest.param(refused(403), [{}, ANOTHER_WORD], [ANOTHER_MODEL, COUNTING], id="not this model"),
        pytest.param(refused(404), [{}, ANOTHER_WORD], [ANOTHER_MODEL, COUNTING], id="no such model"),
        pytest.param(refused(400), [{}, FEWER_BETAS], [ANOTHER_WORD, COUNTING], id="this request"),
        pytest.param(refused(413), [{}, FEWER_BETAS], [ANOTHER_WORD], id="its length"),
        pytest.param(refused(400, "No Beta"), [{}], [FEWER_BETAS, ANOTHER_WORD], id="its betas"),
        pytest.param(refused(429), [], [{}], id="a rate"),
        pytest.param(refused(409), [], [{}], id="a conflict"),
        pytest.param(refused(529), [], [{}], id="an overload"),
        pytest.param(refused(302), [], [{}], id="another place"),
    ],
)
def test_how_far_a_refusal_reaches(clock: Clock, given: Refused, not_asked: Any, asked: Any) -> None:
    known = Refusals(clock)
    known.note(TURN, question(), given)
    for other in not_asked:
        assert known.find(TURN, question(**other)) is given, other
    for other in asked:
        assert known.find(TURN, question(**other)) is None, other


@pytest.mark.parametrize(
    "other", [("grant", "next", b"key"), ("else", "turn", b"key"), ("grant", "turn", b"new")]
)
def test_it_holds_for_its_turn_and_its_key(clock: Clock, other: Any) -> None:
    known = Refusals(clock)
    known.note(TURN, question(), refused(401))
    assert known.find(other, question()) is None


def test_it_holds_for_a_while(clock: Clock) -> None:
    known = Refusals(clock)
    known.note(TURN, question(), refused(401))
    clock.now += module.FOR_S - 1
    assert known.find(TURN, question()) is not None
    clock.now += 2
    assert known.find(TURN, question()) is None


def test_what_is_no_request_has_no_model(clock: Clock) -> None:
    known = Refusals(clock)
    for body in (b"\xff", b"[" * 9999, b""):
        known.note(TURN, Question("/v1/messages", "", body), refused(400))
        assert known.find(TURN, Question("/v1/messages", "", body)) is not None


def test_only_so_much_is_kept(clock: Clock) -> None:
    known = Refusals(clock)
    for number in range(module.MOST_TURNS + 1):
        known.note(("grant", f"turn {number}", b""), question(), refused(401))
    assert known.find(("grant", "turn 0", b""), question()) is None
    assert known.find(("grant", "turn 1", b""), question()) is not None
    for number in range(module.MOST_OF_A_TURN + 1):
        known.note(TURN, question(words=f"{number}"), refused(400))
    assert known.find(TURN, question(words="0")) is not None
    assert known.find(TURN, question(words=str(module.MOST_OF_A_TURN))) is None
