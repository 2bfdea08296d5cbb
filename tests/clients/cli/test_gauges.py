"""How quantities are shown."""

import time

import pytest
from dragoman.cli.gauges import bar, count, instant, money, span


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "░░░░"), (0.5, "██░░"), (1, "████"), (7.5, "████"), (-3, "░░░░"), (0.24, "█░░░")]
)
def test_bars(share: float, shown: str) -> None:
    assert bar(share, 4) == shown


@pytest.mark.parametrize(
    ("usd", "shown"), [(0, "$0.00"), (0.0123, "$0.0123"), (1, "$1.00"), (1234.567, "$1234.57")]
)
def test_money(usd: float, shown: str) -> None:
    assert money(usd) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (-4, "0 s"), (59.6, "1 min"), (320, "5 min 20 s"), (7_200, "2 h"), (183_845, "2 d 3 h")],
)
def test_spans(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_instants() -> None:
    noon = time.mktime((2026, 5, 4, 12, 0, 0, 0, 0, -1))
    assert instant(noon + 120, noon) == "12:02 (in 2 min)"
    assert instant(noon - 120, noon) == "11:58 (2 min ago)"
    assert instant(noon + 3 * 86_400, noon) == "2026-05-07 12:00 (in 3 d)"


def test_counts() -> None:
    assert [count(number, "turn") for number in (0, 1, 2)] == ["0 turns", "1 turn", "2 turns"]
