"""Deadlines of a call, on a clock of the test's own."""

from collections.abc import Callable
from typing import Any

from dragomand.upstream.messages_api.settings import DirectSettings
from dragomand.upstream.messages_api.watchdog import Watchdog


class Loop:
    """A loop's clock and timers."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[list[Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Any:
        timer = [when, call]
        self.timers.append(timer)
        loop = self

        class Handle:
            def cancel(self) -> None:
                if timer in loop.timers:
                    loop.timers.remove(timer)

        return Handle()

    def advance(self, seconds: float) -> None:
        """Let time pass, firing what is due."""
        end = self.now + seconds
        while self.timers and min(timer[0] for timer in self.timers) <= end:
            timer = min(self.timers, key=lambda timer: float(timer[0]))
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = end


def watch() -> tuple[Loop, Watchdog, list[float]]:
    loop, bites = Loop(), []
    settings = DirectSettings(first_byte_timeout_s=120, idle_timeout_s=60, pings_timeout_s=300)
    dog = Watchdog(loop, settings, lambda: bites.append(loop.now))  # type: ignore[arg-type]
    return loop, dog, bites


def test_no_first_byte() -> None:
    loop, dog, bites = watch()
    loop.advance(119)
    assert dog.late is None
    loop.advance(2)
    assert (bites, dog.late) == ([220.0], "sent no answer for 120 s")
    assert not loop.timers


def test_silence_after_the_first_byte() -> None:
    loop, dog, bites = watch()
    loop.advance(100)
    dog.heard(words=True)
    loop.advance(50)
    dog.heard(words=True)
    loop.advance(59)
    assert not bites
    loop.advance(2)
    assert (bites, dog.late) == ([310.0], "sent nothing for 60 s")


def test_pings_only() -> None:
    loop, dog, bites = watch()
    dog.heard(words=True)
    for _ in range(15):
        loop.advance(20)
        assert not bites or loop.now >= 400
        dog.heard(words=False)
    loop.advance(1)
    assert (bites, dog.late) == ([400.0], "sent only pings for 300 s")


def test_one_timer_and_none_after_the_end() -> None:
    loop, dog, bites = watch()
    for _ in range(1000):
        loop.advance(0.02)
        dog.heard(words=True)
        assert len(loop.timers) == 1
    dog.stop()
    loop.advance(1000)
    assert (loop.timers, bites) == ([], [])
