"""How much of something may be used per second, on average, and how much of it at once.

Theory. A token bucket: it holds at most `capacity` tokens and refills at `rate` a second, without steps.
An amount is granted when it is there, or when the bucket is full (an amount above the capacity has to be
granted some day), and is then taken, so that the level may go below zero: into debt, which the refill pays
first. What is granted is an estimate; `settle` takes or gives back the difference to what was really used.
So for every window of t seconds

    granted <= capacity + rate * t + (what one amount alone is above the capacity)

where each grant counts with what it really took, or its estimate if that is more. Giving back is where
buckets usually break this: tokens that a full bucket spilled while an estimate was out must not come back.
Here a refund never lifts the level above where it would be had the difference not been taken at all. For
that the bucket remembers the least room (capacity - level) since each grant, as a stack of ever smaller
room from its end, with a bound. A clock that goes backwards adds nothing; changing rate or capacity gives
nothing.
"""

import math
from bisect import bisect_left, bisect_right

MOST_ROOMS = 32
"""How long the memory for refunds is. Beyond it the oldest two become one, and refunds may be too small."""

_ROUNDING = 2.0**-50
"""What a sum of a few numbers may be wrong by, as a share of the greatest of them."""


class TokenBucket:
    """Tokens that come back with time. All times are seconds of one monotonic clock."""

    __slots__ = ("_at", "_level", "_mark", "_marks", "_rooms", "_rounding", "capacity", "rate", "slack")

    def __init__(self, capacity: float, rate: float, now: float, level: float | None = None) -> None:
        """Hold at most *capacity* tokens, *rate* more each second; begin with *level* (None: full)."""
        self._check(capacity, rate)
        self.capacity = capacity
        self.rate = rate
        self.slack = _slack(capacity, rate)
        """How much may be missing where it is only a matter of rounding."""
        self._level = capacity if level is None else min(level, capacity)
        self._at = now
        self._rounding = 0.0
        """How much the refill last counted may be wrong: more of a debt far above the capacity, or late."""
        self._mark = 0
        self._marks: list[int] = []
        self._rooms: list[float] = []

    @classmethod
    def per(cls, amount: float, seconds: float, now: float) -> "TokenBucket":
        """Return a bucket of *amount* in each *seconds*: 60 a minute is 60 at once and 1 more each second."""
        return cls(amount, amount / seconds, now)

    def level(self, now: float) -> float:
        """Return how many tokens there are; negative: debt."""
        self._refill(now)
        return self._level

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until *amount* would be granted if nobody else takes any; 0: now."""
        if now > self._at:
            self._refill(now)
        missing = (amount if amount < self.capacity else self.capacity) - self._level
        if missing <= self.slack + self._rounding:
            return 0.0
        return missing / self.rate if self.rate else math.inf

    def take(self, amount: float, now: float) -> int:
        """Take *amount*, whatever the level; returns the mark that `settle` wants. Ask `wait` before."""
        if now > self._at:
            self._refill(now)
        self._note_room()
        self._mark += 1
        self._level -= amount
        return self._mark

    def reserve(self, amount: float, now: float) -> int | None:
        """Take *amount* if it is granted now, and return its mark; None, and nothing is taken, if not."""
        return self.take(amount, now) if not self.wait(amount, now) else None

    def settle(self, mark: int, difference: float, now: float) -> None:
        """Correct the amount taken at *mark* by *difference*: positive takes more, negative gives back."""
        self._refill(now)
        if difference >= 0:
            self._note_room()
            self._level -= difference
        else:
            self._give_back(mark, -difference)

    def change(self, capacity: float, rate: float, now: float) -> None:
        """From now on hold at most *capacity*, refill at *rate*. Adds nothing; what is above is spilled."""
        self._check(capacity, rate)
        self._refill(now)
        self._note_room()
        self.capacity, self.rate, self.slack = capacity, rate, _slack(capacity, rate)
        self._level = min(self._level, capacity)
        self._note_room()

    def lower(self, level: float, now: float, since: int | None = None) -> None:
        """Have at most *level* tokens: somebody else has used some.

        *level* is known after what the grants before mark *since* (None: all) really took, so what those give
        back lifts the level no higher than that.
        """
        self._refill(now)
        if level < self._level:
            self._note_room()
            self._level = level
        last = self._mark if since is None else since - 1
        rooms, marks = self._rooms, self._marks
        at = bisect_right(marks, last)
        rooms.insert(at, level - self._level)
        marks.insert(at, last)
        self._keep_rising(at)

    @staticmethod
    def _check(capacity: float, rate: float) -> None:
        if not (0 < capacity < math.inf and 0 <= rate < math.inf):
            raise ValueError(
                f"a bucket of {capacity} tokens, {rate} more a second, cannot be; "
                "the capacity must be above 0, the rate 0 or more, both finite"
            )

    def _refill(self, now: float) -> None:
        if now > self._at:
            gained = (now - self._at) * self.rate
            level = self._level + gained
            self._rounding = (gained + self.rate * now) * _ROUNDING
            self._level = level if level < self.capacity else self.capacity
            self._at = now

    def _note_room(self) -> None:
        """Remember the room there is before something is taken."""
        room = self.capacity - self._level
        marks, rooms = self._marks, self._rooms
        while rooms and rooms[-1] >= room:
            rooms.pop()
            marks.pop()
        rooms.append(room)
        marks.append(self._mark)
        if len(rooms) > MOST_ROOMS:
            del rooms[1], marks[0]

    def _keep_rising(self, at: int) -> None:
        """Drop what is before *at* and has no less room: whoever asks for it is answered by *at*."""
        rooms, marks = self._rooms, self._marks
        while at > 0 and rooms[at - 1] >= rooms[at]:
            at -= 1
            del rooms[at], marks[at]

    def _give_back(self, mark: int, amount: float) -> None:
        marks, rooms = self._marks, self._rooms
        since = bisect_left(marks, mark)
        room = self.capacity - self._level
        if since < len(rooms):
            room = min(room, rooms[since])
        back = min(amount, room)
        self._level += back
        for at in range(since, len(rooms)):
            rooms[at] -= back
        if since < len(rooms):
            self._keep_rising(since)


def _slack(capacity: float, rate: float) -> float:
    """How much may be missing: less than rounding of times and sums makes, so that a wait ends in a grant."""
    return 1e-9 * capacity + 1e-7 * rate
