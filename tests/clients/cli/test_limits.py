"""`dragoman limits`."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from dragoman_protocol.breaker import BreakerResetResult
from dragoman_protocol.limits import (
    ClientShare,
    LimitsExplainResult,
    LimitsGetResult,
    LimitsStateResult,
)

STATE = LimitsStateResult(running=1, queued=0, max_running=8, max_queued=512, max_queued_per_client=64)
SETTINGS = LimitsGetResult(
    settings={"limits.queriesPerMinute": 30, "breaker.timeoutMs": 60_000},
    changed=["limits.queriesPerMinute"],
    clients={"nvim": ClientShare(weight=2), "job": ClientShare(priority="batch")},
)


def asked(served: Any, method: str) -> list[dict[str, Any]]:
    return [given for name, given in served.requests if name == method]


@pytest.fixture
def served(scripted: Any, home: Any) -> Any:
    scripted.listen(home.paths.socket)
    return scripted


def test_the_state(run: Callable[..., Any], served: Any) -> None:
    served.answers("limits/state", STATE)
    done = run("limits")
    assert done.status == 0
    assert "1 of 8 run, 0 wait" in done.out
    assert json.loads(run("limits", "--json").out)["maxRunning"] == 8


def test_watching_goes_on_until_it_is_interrupted(served: Any, terminal: Any) -> None:
    served.answers("limits/state", STATE)
    shown = terminal("limits", "--watch", "0.01")
    shown.read_until("1 of 8 run")
    shown.read_until("\x1b[H\x1b[J")
    shown.read_until("1 of 8 run")
    os.kill(shown.process.pid, signal.SIGINT)
    status, _ = shown.end()
    assert status == 130


def test_why_something_waits(run: Callable[..., Any], served: Any) -> None:
    served.answers("limits/explain", LimitsExplainResult(waiting=[]))
    assert run("limits", "explain").out == "Nothing waits.\n"
    assert json.loads(run("limits", "explain", "s1", "--json").out) == {"waiting": []}
    assert asked(served, "limits/explain")[-1] == {"sessionId": "s1"}


def test_the_settings(run: Callable[..., Any], served: Any) -> None:
    served.answers("limits/get", SETTINGS)
    assert run("limits", "get").out.splitlines() == [
        "limits.queriesPerMinute              30  (set at run time)",
        "breaker.timeoutMs                    60000",
        "client 'nvim': weight 2, as it asks",
        "client 'job': weight 1, batch",
    ]
    assert json.loads(run("limits", "get", "--json").out)["changed"] == ["limits.queriesPerMinute"]


def test_changing_them(run: Callable[..., Any], served: Any) -> None:
    served.answers("limits/set", SETTINGS)
    changes = ("limits.queriesPerMinute=30", "budget.hourUsd=2.5", "breaker.timeoutMs=", "x.y=word")
    assert run("limits", "set", *changes).status == 0
    assert asked(served, "limits/set")[-1] == {
        "settings": {
            "limits.queriesPerMinute": 30, "budget.hourUsd": 2.5, "breaker.timeoutMs": None, "x.y": "word",
        }
    }  # fmt: skip
    done = run("limits", "set", "limits.queriesPerMinute")
    assert done.status == 2
    assert "expected NAME=VALUE" in done.err


def test_closing_breakers(run: Callable[..., Any], served: Any) -> None:
    served.answers("breaker/reset", BreakerResetResult(reset=1))
    assert run("limits", "reset").out == "Closed 1 breaker.\n"
    assert json.loads(run("limits", "reset", "--json").out) == {"reset": 1}
