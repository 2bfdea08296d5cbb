"""Every fault of the provider, every way to it: what a client is told, and how often the provider was asked.

The ways: `messages_api`; Claude Code through the `gateway`; Claude Code `straight` to the API (with a login
of its own there is no gateway). Claude Code repeats some calls by rules of its own, whatever
`claude.maxRetries` (here 1, behind the gateway 0) says: a 400 in up to six forms, a 401, an answer that broke
off. What is refused for good the gateway does not ask again (`gateway/refusals.py`): there a spend cap, a 401
and a 402 cost exactly one request. The daemon's own retries are off here (`test_retries`). The time bound of
every row is `WITHIN_S`, beside this file; whatever is left at the provider or of processes fails it (RV.10,
RV.13).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from dragoman_sim import Cut, Malformed, Pause, Ping, Pings, Reply, Stall, Status, StreamError
from dragoman_sim.faults import NAMED

CODES = {
    "throttle": 1203,
    "quota": 1204,
    "overload": 1205,
    "auth": 1101,
    "caller": 1206,
    "protocol": 1402,
    None: None,
}
"""The code on the wire of each class; None: the turn completes."""

WAYS = ("messages_api", "gateway", "straight")


class Row(NamedTuple):
    """One fault and what comes of it."""

    name: str
    fault: Any
    category: str | None
    http: int | None
    calls: tuple[int, int, int]
    """In the order of `WAYS`."""
    pause_ms: tuple[int, int] | None = None
    """Between which the pause lies that a client is told of; straight, Claude Code hides what it was told."""
    kept: str | None = None
    """What had come of the answer and stays told; None: it is a matter of the moment."""
    reply: Any = None
    otherwise: Mapping[str, tuple[str | None, int | None]] = MappingProxyType({})
    """Class and HTTP status where a way sees it otherwise."""


OF_THE_REQUEST = [
    Row("400", "bad_request", "caller", 400, (1, 4, 6), kept=""),
    Row("400 of the account", "spend_limit_400", "quota", 400, (1, 1, 6), kept=""),
    Row("413", "too_large", "caller", 413, (1, 1, 1), kept=""),
    Row("422", Status(422), "caller", 422, (1, 4, 6), kept=""),
]
"""Each in a process of its own: Claude Code learns of a 400 which forms of a request not to try any more."""

REFUSALS = [
    Row("401", "unauthorized", "auth", 401, (1, 1, 2), kept=""),
    Row("402", "payment_required", "quota", 402, (1, 1, 1), kept=""),
    Row("403", "forbidden", "auth", 403, (1, 1, 1), kept=""),
    Row("404", "not_found", "caller", 404, (1, 1, 2), kept=""),
    Row("429 for ever", "spend_cap", "quota", 429, (1, 1, 1), kept=""),
]

_PAUSE_MS = Status(429, headers={"retry-after-ms": "300"})
PAUSES = [
    Row("429 seconds", "rate_limited", "throttle", 429, (1, 1, 2), (1000, 1000)),
    Row("429 date", "rate_limited_date", "throttle", 429, (1, 1, 2), (1, 2000)),
    Row("429 milliseconds", _PAUSE_MS, "throttle", 429, (1, 1, 2), (300, 300)),
    Row("429 longer than a day", Status(429, retry_after="99999"), "quota", 429, (1, 1, 1),
        otherwise={"straight": ("throttle", 429)}),
    Row("429 bare", "rate_limited_bare", "throttle", 429, (1, 1, 2)),
]  # fmt: skip

OVERLOADS = [
    Row("408", "request_timeout", "overload", 408, (1, 1, 2)),
    Row("500", "server_error", "overload", 500, (1, 1, 2)),
    Row("502 HTML", "bad_gateway", "overload", 502, (1, 1, 2)),
    Row("503", "unavailable", "overload", 503, (1, 1, 2)),
    Row("504", "gateway_timeout", "overload", 504, (1, 1, 2)),
    Row("529", "overloaded", "overload", 529, (1, 1, 2)),
]

_SLOW = StreamError("rate_limit_error", "Slow down")
_BROKEN = StreamError("api_error", "Internal server error")
STREAMS = [
    Row("event overloaded", "overloaded_event", "overload", 529, (1, 2, 2)),
    Row("event rate", _SLOW, "throttle", 429, (1, 2, 2)),
    Row("event error", _BROKEN, "overload", 500, (1, 2, 2)),
    Row("no JSON", "bad_json", "protocol", None, (1, 2, 2),
        otherwise={"gateway": ("overload", None), "straight": ("overload", None)}),
    Row("no SSE", "bad_sse", None, None, (1, 1, 1), kept="this and that"),
    Row("no UTF-8", "bad_utf8", None, None, (1, 1, 1), kept="this bad \ufffd\ufffd\ufffd bytesand that"),
    Row("half a character", "lone_surrogate", None, None, (1, 1, 1),
        kept="this lone \ufffd surrogateand that"),
    Row("slow head", None, None, None, (1, 1, 1), kept="this", reply=Reply(["this"], first_delay_ms=300)),
    Row("slow body", None, None, None, (1, 1, 1), kept="th is",
        reply=Reply(["th", Pause(150), " ", Ping(), Pause(150), "is"])),
    Row("3 MB", "long_line", None, None, (1, 1, 1), kept="this " + "x" * 3 * 1024 * 1024 + "and that"),
]  # fmt: skip

CUTS = [
    Row("cut before the head", "cut_before_headers", "overload", None, (1, 1, 2),
        otherwise={"gateway": ("overload", 502)}),
    Row("cut after the head", "cut_after_headers", "overload", None, (1, 2, 3)),
    Row("cut before a block", Cut("before_block", delay_ms=50), "overload", None, (1, 2, 3)),
    Row("cut in a block", Cut(delay_ms=50), "overload", None, (1, 2, 3)),
    Row("reset in a block", Cut(reset=True, delay_ms=50), "overload", None, (1, 2, 3)),
    Row("reset before the head", Cut("before_headers", reset=True), "overload", None, (1, 1, 2),
        otherwise={"gateway": ("overload", 502)}),
    Row("cut after a block", Cut("after_block", delay_ms=50), "overload", None, (1, 3, 3),
        otherwise={"gateway": (None, None), "straight": (None, None)}),
]  # fmt: skip

SILENCES = [
    Row("no head", "no_headers", "overload", None, (1, 1, 2), otherwise={"gateway": ("overload", 504)}),
    Row("head alone", "headers_only", "overload", None, (1, 2, 1)),
    Row("silence in a block", "stall", "overload", None, (1, 2, 1), kept="this ",
        otherwise={"gateway": ("overload", 504)}),
    Row("pings alone", Pings(every_ms=50), "overload", None, (1, 2, 1),
        otherwise={"gateway": ("overload", 504)}),
    Row("pings in a block", Pings("inside_block", every_ms=50), "overload", None, (1, 2, 1), kept="this ",
        otherwise={"gateway": ("overload", 504)}),
]  # fmt: skip
"""A stream that fell silent Claude Code asks for once more as a stream, and once without, which ends in a
504. Straight to the API it waits five minutes at least; our own watchdog stops it before that."""

GROUPS = {
    "refusals": REFUSALS, "pauses": PAUSES, "overloads": OVERLOADS, "streams": STREAMS, "cuts": CUTS,
    "silences": SILENCES,
}  # fmt: skip
SPANS = {"first_byte_s": 0.6, "idle_s": 0.5, "pings_s": 0.7, "api_timeout_ms": 1500, "stall_s": 4.0}
"""The deadlines for the silences, instead of minutes."""


def expected(way: str, rows: list[Row]) -> dict[str, Any]:
    """Return what the table says: status, class, HTTP status, code, calls."""
    wanted: dict[str, Any] = {}
    for row in rows:
        category, http = row.otherwise.get(way, (row.category, row.http))
        status = "completed" if category is None else "failed"
        wanted[row.name] = (status, category, http, CODES[category], row.calls[WAYS.index(way)])
    return wanted


def check(way: str, rows: list[Row], seen: dict[str, Any]) -> None:
    """Compare *seen* with the table."""
    assert {name: tuple(one[:5]) for name, one in seen.items()} == expected(way, rows)
    for row in rows:
        one = seen[row.name]
        assert row.kept is None or one.text == row.kept, row.name
        assert (one.category is None) == (one.message == ""), row.name
        assert "dragoman.invalid" not in one.message
        assert "ANTHROPIC_BASE_URL" not in one.message or way == "straight"
        if way != "straight":
            least, most = row.pause_ms or (None, None)
            assert one.pause_ms == least or (least is not None and least <= one.pause_ms <= most), row.name


@pytest.mark.parametrize("group", GROUPS)
async def test_the_api_itself(faulty: Any, group: str) -> None:
    faulty.settings = SPANS if group == "silences" else {}
    rows = GROUPS[group] + (OF_THE_REQUEST if group == "refusals" else [])
    check("messages_api", rows, await faulty.ask("messages_api", rows))


@pytest.mark.parametrize("group", GROUPS)
async def test_claude_code_through_the_gateway(faulty: Any, group: str) -> None:
    faulty.settings = SPANS if group == "silences" else {}
    check("gateway", GROUPS[group], await faulty.ask("gateway", GROUPS[group]))


@pytest.mark.parametrize(
    "group", [pytest.param(group, marks=pytest.mark.slow if group == "silences" else ()) for group in GROUPS]
)
async def test_claude_code_straight_to_the_api(faulty: Any, group: str) -> None:
    faulty.settings = SPANS if group == "silences" else {}
    check("straight", GROUPS[group], await faulty.ask("straight", GROUPS[group]))


@pytest.mark.parametrize("way", ["gateway", "straight"])
@pytest.mark.parametrize("row", OF_THE_REQUEST, ids=lambda row: row.name)
async def test_a_request_that_is_wrong(faulty: Any, way: str, row: Row) -> None:
    check(way, [row], await faulty.ask(way, [row]))


def test_every_fault_of_the_simulator_has_its_row() -> None:
    rows = [*OF_THE_REQUEST, *(row for group in GROUPS.values() for row in group)]
    assert len({row.name for row in rows}) == len(rows)
    named = {row.fault for row in rows if isinstance(row.fault, str)}
    others = {type(row.fault) for row in rows} | {type(fault) for fault in map(NAMED.get, named)}
    assert others >= {Status, Cut, Stall, Pings, StreamError, Malformed}
    in_another_form = {"cut", "cut_before_block", "cut_after_block", "reset", "pings_only", "rate_limited_ms"}
    assert named | in_another_form == set(NAMED)
