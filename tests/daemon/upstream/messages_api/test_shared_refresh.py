"""One thread does the slow work for all who wait."""

import asyncio
import threading

import pytest
from dragomand.upstream.messages_api.shared_refresh import SharedRefresh

DEADLINE_S = 20.0


class Work:
    """Waits for its gate in the thread and counts."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.threads: list[threading.Thread] = []
        self.error: BaseException | None = None

    def __call__(self) -> int:
        self.threads.append(threading.current_thread())
        self.begun.set()
        assert self.gate.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        return len(self.threads)


async def test_those_who_come_together_share_one_thread() -> None:
    work = Work()
    shared = SharedRefresh(work, timeout_s=DEADLINE_S, name="test-refresh")
    waiting = [asyncio.create_task(shared.result()) for _ in range(50)]
    assert await asyncio.to_thread(work.begun.wait, DEADLINE_S)
    work.gate.set()
    assert await asyncio.gather(*waiting) == [1] * 50
    (thread,) = work.threads
    assert thread is not threading.main_thread()
    assert (thread.daemon, thread.name) == (True, "test-refresh")
    assert await shared.result() == 2  # who comes later has it done anew


async def test_an_error_reaches_all_of_them_and_the_next_tries_again() -> None:
    work = Work()
    work.error = ValueError("no")
    work.gate.set()
    shared = SharedRefresh(work, timeout_s=DEADLINE_S, name="test-refresh")
    results = await asyncio.gather(*(shared.result() for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["no"] * 3
    work.error = None
    assert await shared.result() == 2


async def test_work_that_hangs_keeps_nobody_and_is_joined_not_repeated() -> None:
    work = Work()
    shared = SharedRefresh(work, timeout_s=0.05, name="test-refresh")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await shared.result()
    assert len(work.threads) == 1
    late = shared.begin()
    work.gate.set()
    async with asyncio.timeout(DEADLINE_S):
        assert await late == 1


async def test_who_goes_away_takes_nothing_from_the_others() -> None:
    work = Work()
    shared = SharedRefresh(work, timeout_s=DEADLINE_S, name="test-refresh")
    gone, stays = asyncio.create_task(shared.result()), asyncio.create_task(shared.result())
    assert await asyncio.to_thread(work.begun.wait, DEADLINE_S)
    gone.cancel()
    work.gate.set()
    assert await stays == 1
    with pytest.raises(asyncio.CancelledError):
        await gone


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(4)])
async def test_an_end_that_is_no_answer_is_an_error(error: BaseException) -> None:
    work = Work()
    work.error = error
    work.gate.set()
    with pytest.raises(RuntimeError, match=type(error).__name__):
        await SharedRefresh(work, timeout_s=DEADLINE_S, name="test-refresh").result()


def test_the_loops_end_is_not_waited_for() -> None:
    work = Work()

    async def leave() -> None:
        shared = SharedRefresh(work, timeout_s=0.05, name="test-refresh")
        with pytest.raises(TimeoutError):
            await shared.result()

    asyncio.run(leave())
    work.gate.set()
    work.threads[0].join(DEADLINE_S)
    assert not work.threads[0].is_alive()


async def test_a_wait_that_was_given_up_is_no_trouble_for_the_thread() -> None:
    work = Work()
    shared = SharedRefresh(work, timeout_s=DEADLINE_S, name="test-refresh")
    given_up = shared.begin()
    assert await asyncio.to_thread(work.begun.wait, DEADLINE_S)
    given_up.cancel()
    work.gate.set()
    await asyncio.to_thread(work.threads[0].join, DEADLINE_S)
    await asyncio.sleep(0)  # what the thread left for the loop
    assert await shared.result() == 2


async def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work()
    work.gate.set()
    shared = SharedRefresh(work, timeout_s=DEADLINE_S, name="test-refresh")

    def none_left(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError, match="new thread"):
            await shared.result()
    assert await shared.result() == 1
