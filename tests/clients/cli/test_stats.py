"""`dragoman stats`."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from dragoman_protocol.session import Usage
from dragoman_protocol.stats import Counts, NamedCounts, StatsGetResult, StatsResetResult

FOUND = StatsGetResult(
    since=0.0,
    total=Counts(
        turns=3, succeeded=1, failed=1, cancelled=1, cost_usd=1.5, cost_unknown=1, duration_ms=65_000,
        usage=Usage(input_tokens=10, output_tokens=5, cache_read_tokens=2), average_cost_usd=0.75,
    ),
    clients=[NamedCounts(name="nvim\x1b", turns=3)],
    models=[NamedCounts(name="opus", turns=2)],
    projects=[NamedCounts(name="/srv/shop", turns=1)],
)  # fmt: skip


def asked(served: Any, method: str) -> list[dict[str, Any]]:
    return [given for name, given in served.requests if name == method]


@pytest.fixture
def served(scripted: Any, home: Any) -> Any:
    scripted.listen(home.paths.socket)
    return scripted


def test_what_was_done(run: Callable[..., Any], served: Any) -> None:
    served.answers("stats/get", FOUND)
    rows = [line.split("\t") for line in run("stats").out.splitlines()]
    assert rows[0] == ["all", "3", "1", "1", "$1.50 + 1 unknown", "$0.7500", "12", "5", "1 min 5 s"]
    assert [row[0] for row in rows[1:]] == ["client nvim", "model opus", "folder /srv/shop"]
    assert json.loads(run("stats", "--json").out)["total"]["turns"] == 3
    assert asked(served, "stats/get")[-1] == {}


def test_the_last_days(run: Callable[..., Any], served: Any) -> None:
    served.answers("stats/get", FOUND)
    assert run("stats", "--days", "2").status == 0
    assert abs(asked(served, "stats/get")[-1]["since"] - (time.time() - 2 * 86_400)) < 60


def test_a_table_for_people(served: Any, terminal: Any) -> None:
    served.answers("stats/get", FOUND)
    status, shown = terminal("stats", COLUMNS="120").end()
    assert status == 0
    assert "folder /srv/shop" in shown
    assert "Since" in shown
    assert "Turns" in shown


def test_counting_anew(run: Callable[..., Any], served: Any) -> None:
    served.answers("stats/reset", StatsResetResult(since=0.0))
    assert run("stats", "reset").out.startswith("Counting since 19")
    assert json.loads(run("stats", "reset", "--json").out) == {"since": 0.0}
