"""Gates."""

from __future__ import annotations

import asyncio

import pytest
from dragoman_sim.gates import Gates


async def test_open_stays_open_and_close_closes():
    gate = Gates()["g"]
    first = asyncio.ensure_future(gate.passed())
    await gate.wait_arrived()
    assert (gate.waiting, first.done()) == (1, False)
    await gate.open()
    await first
    await gate.passed()
    assert (gate.waiting, gate.arrived, gate.is_open) == (0, 2, True)
    gate.close()
    third = asyncio.ensure_future(gate.passed())
    await gate.wait_arrived(3)
    assert not third.done()
    third.cancel()
    await asyncio.wait([third])
    assert gate.waiting == 0


async def test_release_lets_only_those_pass_who_wait():
    gate = Gates()["g"]
    first = asyncio.ensure_future(gate.passed())
    await gate.wait_arrived(1)
    await gate.release()
    await first
    second = asyncio.ensure_future(gate.passed())
    await gate.wait_arrived(2)
    assert (second.done(), gate.is_open) == (False, False)
    await gate.release()
    await second


async def test_waiting_in_vain_names_the_gate():
    gates = Gates()
    with pytest.raises(TimeoutError, match=r"Expected 2 replies at gate 'g' within 0.01 s, 0 came"):
        await gates["g"].wait_arrived(2, deadline_s=0.01)
    assert gates["g"] is gates["g"]
    assert gates.states() == {"g": {"open": False, "waiting": 0, "arrived": 0}}
