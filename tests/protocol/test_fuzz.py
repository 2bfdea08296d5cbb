"""Hypothesis against codec and peer: any bytes, any split, any order of two peers' doings.

Always the same examples, so that a run tells of the change and not of luck; to look for new ones, set
`FUZZ_EXAMPLES=20000`.
"""

import itertools
import json
import os
from collections import Counter
from typing import Any

from dragoman_protocol.codec import Decoder, Framing, encode_frame
from dragoman_protocol.errors import BY_KIND, RpcError
from dragoman_protocol.peer import Arrival, Notification, Peer, Reply, Request, Response
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "400")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

FRAMINGS: st.SearchStrategy[Framing] = st.sampled_from(["lines", "headers"])
CUTS = st.lists(st.integers(0, 400), max_size=12)

IDS: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 3),
    st.integers(-(2**60), 2**60),
    st.sampled_from(["1", "", "a", "é🙂"]),
    st.sampled_from([None, True, 1.5, [1], {}]),
)
NUMBERS = st.one_of(st.integers(-99, 99), st.floats(allow_nan=False, allow_infinity=False))
WORDS = st.text(max_size=4)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=5,
)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "jsonrpc": st.sampled_from(["2.0", "2.0", "2.0", "1.0", 2]),
    "id": IDS,
    "method": st.one_of(st.sampled_from(["a", "b/c"]), st.sampled_from([1, None])),
    "params": st.one_of(st.just({}), st.lists(VALUES, max_size=2), VALUES),
    "result": VALUES,
    "error": st.one_of(st.just({"code": 1, "message": "m"}), VALUES),
    "more": VALUES,
}
SENSIBLE = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": st.just("a")},
    optional={"id": st.one_of(st.integers(0, 5), st.sampled_from(["1", "x"])), "params": st.just({"p": [1]})},
)
ODD = st.fixed_dictionaries({}, optional=MEMBERS)
MESSAGES = st.one_of(SENSIBLE, ODD, VALUES)
LINES = st.binary(min_size=1, max_size=40).filter(lambda body: b"\n" not in body)
DAMAGE = st.tuples(st.integers(0, 500), st.integers(0, 2), st.binary(max_size=2))
"""Where, how many bytes are taken away, what is put in their place."""
BODIES = st.one_of(
    MESSAGES.map(lambda value: json.dumps(value).encode()),
    st.lists(MESSAGES, max_size=4).map(lambda value: json.dumps(value, separators=(",", ":")).encode()),
    SENSIBLE.map(lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """*data* cut at *cuts* (positions modulo its length)."""
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A conversation in one framing, with a few bytes put in, taken away or changed."""
    framing = draw(FRAMINGS)
    data = bytearray(b"".join(encode_frame(body, framing) for body in draw(st.lists(BODIES, max_size=5))))
    for at, what, byte in draw(st.lists(DAMAGE, max_size=3)):
        start = at % (len(data) + 1)
        data[start : start + what] = byte
    return bytes(data)


def essence(arrival: Arrival) -> tuple[Any, ...]:
    if isinstance(arrival, Request):
        return "request", type(arrival.id), arrival.id, arrival.method, bytes(arrival.params)
    if isinstance(arrival, Notification):
        return "notification", arrival.method, bytes(arrival.params)
    if isinstance(arrival, Reply):
        return "reply", arrival.data, arrival.error.kind, arrival.fatal
    return "response", arrival.id, bytes(arrival.result), arrival.error and arrival.error.kind


# -- any split


@given(st.lists(LINES, max_size=5), FRAMINGS, CUTS)
@FUZZ
def test_any_split_of_framed_messages_gives_them(
    bodies: list[bytes], framing: Framing, cuts: list[int]
) -> None:
    decoder = Decoder(framing=framing)
    data = b"".join(encode_frame(body, framing) for body in bodies)
    wanted = [body for body in bodies if framing == "headers" or not body.isspace()]
    assert [frame for piece in pieces(data, cuts) for frame in decoder.feed(piece)] == wanted


@given(st.one_of(damaged(), st.binary(max_size=200)), CUTS, st.integers(0, 60))
@example(b"Content-Length : 2\r\n\r\n{}", [16], 60)
@example(b"Content-Length: 2\n\n{}", [18], 60)
@FUZZ
def test_any_split_of_any_bytes_gives_the_same(data: bytes, cuts: list[int], max_bytes: int) -> None:
    whole, cut = Peer(max_bytes=max_bytes), Peer(max_bytes=max_bytes)
    at_once = [essence(arrival) for arrival in whole.receive(data)]
    in_pieces = [essence(arrival) for piece in pieces(data, cuts) for arrival in cut.receive(piece)]
    assert in_pieces == at_once
    assert cut.framing == whole.framing
    assert cut.incoming.keys() == whole.incoming.keys()


# -- any bytes


def frames_of(sent: bytes, framing: Framing) -> list[Any]:
    """Read what was sent as a client of the standard library alone would."""
    found = []
    while sent:
        if framing == "lines":
            body, _, sent = sent.partition(b"\n")
        else:
            head, _, sent = sent.partition(b"\r\n\r\n")
            size = int(head.removeprefix(b"Content-Length: "))
            body, sent = sent[:size], sent[size:]
        found.append(json.loads(body))
    return found


@given(st.one_of(damaged(), st.binary(max_size=300)), CUTS)
@FUZZ
def test_any_bytes_give_messages_or_documented_errors(data: bytes, cuts: list[int]) -> None:
    peer = Peer()
    sent = b""
    asked: Counter[Any] = Counter()
    for piece in pieces(data, cuts):
        for arrival in peer.receive(piece):
            assert not isinstance(arrival, Response)  # nothing was asked
            if isinstance(arrival, Reply):
                sent += arrival.data
                assert arrival.fatal == (arrival.error.kind == "bad_framing")
            elif isinstance(arrival, Request):
                asked[type(arrival.id), arrival.id] += 1
                sent += peer.respond(arrival, "yes")
    answered: Counter[Any] = Counter()
    for frame in frames_of(sent, peer.framing):
        for message in frame if isinstance(frame, list) else [frame]:
            assert message["jsonrpc"] == "2.0"
            if "error" in message:
                error = message["error"]
                assert BY_KIND[error["data"]["kind"]].code == error["code"]
                assert error["message"]
            else:
                answered[type(message["id"]), message["id"]] += 1
    assert answered == asked
    assert peer.incoming == {}


def owed(text: bytes) -> list[Any]:
    """The ids that must be answered, by the standard library's reading; None where none can be told."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [None]
    if not isinstance(value, list):
        return owed_by(value)
    return [id for part in value for id in owed_by(part)] if value else [None]


def owed_by(message: Any) -> list[Any]:
    if not isinstance(message, dict):
        return [None]
    is_response = "method" not in message and ("result" in message or "error" in message)
    if is_response and (message.get("error") is not None or "result" in message):
        return []
    id = message.get("id")
    usable = isinstance(id, str) or (type(id) is int and abs(id) < 2**53)
    well_formed = (
        message.get("jsonrpc") == "2.0"
        and isinstance(message.get("method"), str)
        and "result" not in message
        and message.get("error") is None
        and isinstance(message.get("params", {}), (dict, list, type(None)))
    )
    if "id" not in message and well_formed:
        return []
    return [id if usable else None]


@given(st.lists(BODIES, max_size=6), FRAMINGS, CUTS)
@FUZZ
def test_every_id_is_answered_exactly_once(bodies: list[bytes], framing: Framing, cuts: list[int]) -> None:
    peer = Peer(framing=framing)
    pending: list[Request] = []
    sent = b""
    for piece in pieces(b"".join(encode_frame(body, framing) for body in bodies), cuts):
        for arrival in peer.receive(piece):
            if isinstance(arrival, Reply):
                sent += arrival.data
            elif isinstance(arrival, Request):
                pending.append(arrival)
    for turn, request in enumerate(reversed(pending)):
        sent += peer.respond(request, turn) if turn % 2 else peer.fail(request, RpcError("draining"))
    answered = [message["id"] for frame in frames_of(sent, framing)
                for message in (frame if isinstance(frame, list) else [frame])]  # fmt: skip
    wanted = [id for body in bodies for id in owed(body)]
    assert Counter((type(id), id) for id in answered) == Counter((type(id), id) for id in wanted)


# -- two peers


class Conversation(RuleBasedStateMachine):
    """Two peers that ask each other, with wires that deliver any number of bytes at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.peers = (Peer(framing="headers"), Peer())
        self.wires = [bytearray(), bytearray()]  # what peer 0, peer 1 has still to receive
        self.open: tuple[list[Request], list[Request]] = ([], [])
        self.waiting: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})  # waiter: what was asked
        self.count = 0
        # The daemon's end learns the framing from the first message, and says nothing before.
        self.peers[1].receive(self.peers[0].notify("initialized"))

    def send(self, end: int, data: bytes) -> None:
        self.wires[1 - end] += data

    @rule(end=st.integers(0, 1), params=st.dictionaries(st.text(max_size=3), VALUES, max_size=2))
    def request(self, end: int, params: Any) -> None:
        self.count += 1
        _, data = self.peers[end].request(f"m{self.count}", params, self.count)
        self.waiting[end][self.count] = self.count
        self.send(end, data)

    @rule(end=st.integers(0, 1))
    def notify(self, end: int) -> None:
        self.send(end, self.peers[end].notify("n", {}))

    @rule(end=st.integers(0, 1), size=st.one_of(st.integers(1, 60), st.just(10_000)))
    def deliver(self, end: int, size: int) -> None:
        data = bytes(self.wires[end][:size])
        del self.wires[end][:size]
        for arrival in self.peers[end].receive(data):
            if isinstance(arrival, Request):
                self.open[end].append(arrival)
            elif isinstance(arrival, Response):
                number = self.waiting[end].pop(arrival.waiter)
                if arrival.error is None:
                    assert json.loads(bytes(arrival.result)) == f"m{number}"
                else:
                    assert (arrival.error.kind, arrival.error.message) == ("draining", f"m{number}")
            else:
                assert isinstance(arrival, Notification)

    @rule(end=st.integers(0, 1), which=st.integers(0, 5), well=st.booleans())
    def answer(self, end: int, which: int, well: bool) -> None:
        if self.open[end]:
            request = self.open[end].pop(which % len(self.open[end]))
            peer, name = self.peers[end], request.method
            self.send(
                end, peer.respond(request, name) if well else peer.fail(request, RpcError("draining", name))
            )

    @rule(end=st.integers(0, 1))
    def forget(self, end: int) -> None:
        if self.waiting[end]:
            id = next(iter(self.peers[end].outgoing))
            del self.waiting[end][self.peers[end].forget(id)]

    @invariant()
    def books_are_right(self) -> None:
        for end in (0, 1):
            assert set(self.peers[end].outgoing.values()) == set(self.waiting[end])
            assert set(self.peers[end].incoming) == {request.id for request in self.open[end]}

    def teardown(self) -> None:
        while any(self.wires) or any(self.open):
            for end in (0, 1):
                self.deliver(end, len(self.wires[end]) or 1)
                self.answer(end, 0, well=True)
        assert self.waiting == ({}, {})
        self.books_are_right()


def test_two_peers_understand_each_other() -> None:
    run_state_machine_as_test(
        Conversation, settings=settings(FUZZ, max_examples=FUZZ.max_examples // 8, stateful_step_count=40)
    )
