"""What the provider has refused for good, so that it is not asked the same again in the same turn.

Claude Code repeats what was refused, by rules of its own that no setting ends: a 400 in six forms, a 401.
A repetition that cannot end otherwise gets the answer that the first one got. What may end otherwise (another
form of the request, a rate, an overload) is asked; an answer that is no refusal is never kept.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from dragomand.upstream.interface import Failure

FOR_S = 120.0
"""How long, in seconds, a refusal holds within a turn."""
MOST_TURNS = 64
"""Of how many turns refusals are kept, those that were refused last."""
MOST_OF_A_TURN = 16
MOST_BODY = 64 * 1024
"""A longer answer is no refusal that is worth keeping, in bytes."""

_FINAL = frozenset({400, 401, 402, 403, 404, 413, 422})
_OF_A_MODEL = frozenset({403, 404})

Turn = tuple[str, str, bytes]
"""Which grant, which turn, and a digest of the key that was refused."""

Key = tuple[str, ...]
_WHATEVER: Key = ("whatever",)


class Question(NamedTuple):
    """What was asked."""

    target: str
    betas: str
    """The header `anthropic-beta`."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A refusal as it is given again."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    failure: Failure


class _Named(msgspec.Struct):
    model: str = ""


class Refusals:
    """Remembers them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing is known yet; *clock* is monotonic seconds."""
        self._clock = clock
        self._turns: OrderedDict[Turn, dict[Key, tuple[float, Refused]]] = OrderedDict()

    def find(self, turn: Turn, asked: Question) -> Refused | None:
        """Return how *asked* was refused in this turn already; None if it has to be asked."""
        known = self._turns.get(turn)
        if known is None:
            return None
        now = self._clock()
        for key in _keys(asked):
            until, refused = known.get(key, (0.0, None))
            if refused is not None and now < until:
                return refused
        return None

    def note(self, turn: Turn, asked: Question, refused: Refused) -> None:
        """Keep a refusal, if nothing else would come of asking again."""
        key = _reach(asked, refused)
        if key is None:
            return
        known = self._turns.setdefault(turn, {})
        self._turns.move_to_end(turn)
        while len(self._turns) > MOST_TURNS:
            self._turns.popitem(last=False)
        if len(known) < MOST_OF_A_TURN or key in known:
            known[key] = self._clock() + FOR_S, refused


def _reach(asked: Question, refused: Refused) -> Key | None:
    """Return for which requests a refusal holds: all, those to a model, the same, the same with its betas."""
    failure, status = refused.failure, refused.status
    if failure.category == "quota" or status == 401:
        return _WHATEVER
    if status not in _FINAL:
        return None
    of_model, same, same_form = list(_keys(asked))[1:]
    if status in _OF_A_MODEL:
        return of_model
    said = failure.message.lower()
    return same_form if "beta" in said or "header" in said else same


def _keys(asked: Question) -> Iterator[Key]:
    """Give what a request may have been refused as, the widest first."""
    yield _WHATEVER
    path = asked.target.partition("?")[0]
    yield "model", path, _model(asked.body)
    digest = hashlib.sha256(asked.body).hexdigest()
    yield "same", asked.target, digest
    yield "form", asked.target, digest, asked.betas


def _model(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Named).model
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
