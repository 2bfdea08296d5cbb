"""What is told of the pool."""

from dragomand.engine.pool_view import pool_result
from dragomand.upstream.interface import PoolState, SpareState


def test_everything_is_told() -> None:
    spares = [SpareState("k", "/work", True, 1.5, 7, True), SpareState("l", None, False, 0.0, None)]
    state = PoolState(2, spares, keys=3, warm=4, cold=5, kept=6, ended={"died": 1}, held_back="memory")
    told = pool_result(state)
    found = [(spare.key, spare.cwd, spare.state, spare.age_ms, spare.memory_bytes) for spare in told.spares]
    assert found == [
        ("k", "/work", "ready", 1500, 7),
        ("l", None, "starting", 0, None),
    ]
    assert (told.max_spare, told.keys, told.warm, told.cold, told.kept) == (2, 3, 4, 5, 6)
    assert (told.ended, told.held_back) == ({"died": 1}, "memory")
    assert [spare.rehearsed for spare in told.spares] == [True, False]
