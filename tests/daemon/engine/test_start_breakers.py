"""What stops the starting of processes, as it is told and closed (04.11)."""

import pytest
from dragomand.engine.start_breakers import HOST, StartBreakers
from dragomand.upstream.interface import StartBreaker


class Starting:
    """Two kinds crash, and everything that is new waits."""

    def start_breakers(self) -> list[StartBreaker]:
        return [
            StartBreaker(of_all=True, state="open", failures=3, opened_at=10.0, retry_at=20.0),
            StartBreaker(of_all=False, state="half_open", failures=4, opened_at=5.0, retry_at=None),
            StartBreaker(of_all=False, state="closed", failures=1, opened_at=None, retry_at=None),
        ]

    def reset_starts(self) -> int:
        return 2


def test_each_is_told_with_a_reason_if_it_is_not_closed() -> None:
    of_all, of_one, closed = StartBreakers(Starting()).told()
    assert {(each.host, each.models) for each in (of_all, of_one, closed)} == {("claudeCode", "")}
    assert (of_all.state, of_all.failures, of_all.opened_at, of_all.retry_at) == ("open", 3, 10.0, 20.0)
    assert "several kinds" in (of_all.reason or "")
    assert "one kind" in (of_one.reason or "")
    assert closed.reason is None


@pytest.mark.parametrize(
    ("host", "models", "closed"),
    [
        (None, None, 2), (HOST, None, 2), (HOST, "", 2),
        (HOST, "opus", 0), (None, "opus", 0), ("api.anthropic.com", None, 0),
    ],
)  # fmt: skip
def test_they_are_closed_where_they_are_meant(host: str | None, models: str | None, closed: int) -> None:
    assert StartBreakers(Starting()).reset(host, models) == closed
