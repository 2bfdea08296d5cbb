"""The endpoints under `/_sim/`: what a test in another process may see and do. All answer JSON.

`GET  /_sim/requests`                 every request so far
`GET  /_sim/gates`                    each gate's state
`POST /_sim/gates/NAME/open`          (`close`, `release`) · `…/arrived?count=N&deadlineMs=D` waits
`GET  /_sim/wait?count=N&text=T&outcome=O&deadlineMs=D`
    waits for the N-th request to `/v1/messages` whose prompt contains T, until its answer has ended so
    (`ended`: in any way), and returns it
`GET  /_sim/limits`                   what the limits let in and refused, in total and by credential
`POST /_sim/script`                   another script
`POST /_sim/reset`                    as new: no requests, gates closed, counts at nothing
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

import msgspec

from dragoman_sim.http import Answer, Connection, HttpRequest, head
from dragoman_sim.records import Record
from dragoman_sim.script import ScriptError, read_script

if TYPE_CHECKING:
    from dragoman_sim.simulator import Simulator

PREFIX = "/_sim/"
_DEADLINE_MS = 10_000.0


def serve(simulator: Simulator, request: HttpRequest, connection: Connection) -> Answer:
    """Return the answer to a request under `/_sim/`."""
    if "origin" in request.headers:
        return _json(403, {"error": "not for web pages"})
    words = [unquote(word) for word in request.path[len(PREFIX) :].split("/")]
    match request.method, words:
        case "GET", ["requests"]:
            return _json(200, {"requests": [record.to_dict() for record in simulator.requests]})
        case "GET", ["gates"]:
            return _json(200, {"gates": simulator.gates.states()})
        case "POST", ["gates", name, ("open" | "close" | "release" | "arrived") as verb]:
            return _gate(simulator, name, verb, request, connection)
        case "GET", ["limits"]:
            return _json(200, simulator.limit_counts())
        case "GET", ["wait"]:
            return _wait(simulator, request, connection)
        case "POST", ["script"]:
            try:
                simulator.use(read_script(request.body))
            except ScriptError as wrong:
                return _json(400, {"error": str(wrong)})
            return _json(200, {"ok": True})
        case "POST", ["reset"]:
            simulator.reset()
            return _json(200, {"ok": True})
        case _:
            return _json(404, {"error": f"There is no {request.method} {request.path}", "see": __doc__})


async def _gate(
    simulator: Simulator, name: str, verb: str, request: HttpRequest, connection: Connection
) -> None:
    gate = simulator.gate(name)
    try:
        if verb == "open":
            await gate.open()
        elif verb == "release":
            await gate.release()
        elif verb == "close":
            gate.close()
        else:
            await gate.wait_arrived(int(_number(request, "count", 1)), _deadline_s(request))
    except TimeoutError as late:
        await connection.write(_json(408, {"error": str(late)}))
    except _NumberError as wrong:
        await connection.write(_json(400, {"error": str(wrong)}))
    else:
        await connection.write(_json(200, simulator.gates.states()[name]))


async def _wait(simulator: Simulator, request: HttpRequest, connection: Connection) -> None:
    try:
        count, deadline_s = int(_number(request, "count", 1)), _deadline_s(request)
        record = await simulator.wait_for(_wanted(request, count), deadline_s)
    except TimeoutError as late:
        await connection.write(_json(408, {"error": str(late)}))
    except _NumberError as wrong:
        await connection.write(_json(400, {"error": str(wrong)}))
    else:
        await connection.write(_json(200, record.to_dict()))


def _wanted(request: HttpRequest, count: int) -> Callable[[Record], bool]:
    """Return the condition that the parameters `text`, `outcome` and *count* make."""
    query = parse_qs(request.query)
    text, outcome = query.get("text", [""])[0], query.get("outcome", [""])[0]
    seen: list[int] = []

    def wanted(record: Record) -> bool:
        if record.message_number is None:
            return False
        if record.number not in seen and (not text or text in record.prompt):
            seen.append(record.number)
        if len(seen) < count or record.number != seen[count - 1]:
            return False
        if outcome == "ended":
            return record.outcome != "answering"
        return outcome in ("", record.outcome)

    return wanted


class _NumberError(ValueError):
    """A parameter is no number."""


def _number(request: HttpRequest, name: str, default: float) -> float:
    given = parse_qs(request.query).get(name)
    if given is None:
        return default
    try:
        return float(given[0])
    except ValueError:
        raise _NumberError(f"{name} is a number, not {given[0]!r}") from None


def _deadline_s(request: HttpRequest) -> float:
    return _number(request, "deadlineMs", _DEADLINE_MS) / 1000


def _json(status: int, value: Any) -> bytes:
    body = msgspec.json.encode(value)
    return head(status, [("content-type", "application/json"), ("content-length", str(len(body)))]) + body
