"""Asking the person at the terminal whether more may be spent."""

import re
import sys
import time

from dragoman_protocol.budget import BudgetRaiseParams, BudgetState

from dragoman.cli.gauges import instant, money
from dragoman.cli.terminal import printable
from dragoman.questions import MOST_USD

_QUESTION = "  Raise it to how many dollars? [Enter: no] "
_AMOUNT = re.compile(r"\$?\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_NO = ("", "n", "no", "none")


def ask_for_more(asked: BudgetRaiseParams) -> float | None:
    """Put the question on stderr and return the new cap in dollars, read from stdin; None: no.

    It is put until the answer can be understood; the end of input is a no. So is what comes when the daemon
    does not wait any more, and that is said.
    """
    sys.stderr.write("\n".join(("", *_situation(asked, time.time()), "")))
    while True:
        sys.stderr.write(_QUESTION)
        sys.stderr.flush()
        word = sys.stdin.readline().strip()
        if word.lower() in _NO:
            return None
        if time.time() >= asked.expires_at:
            sys.stderr.write("  Too late: the turn was refused meanwhile, and the budget is as it was.\n")
            return None
        limit = _dollars(word, asked.budget)
        if limit is not None:
            return limit


def _situation(asked: BudgetRaiseParams, now: float) -> list[str]:
    budget = asked.budget
    name = budget.scope if budget.key is None else f"{budget.scope} {printable(budget.key)}"
    of = "" if budget.limit_usd is None else f" of {money(budget.limit_usd)}"
    reserved = f", {money(budget.reserved_usd)} reserved by what runs" if budget.reserved_usd else ""
    if budget.resets_at is None:
        holds = "It never begins anew; a higher cap holds until it is set again."
    else:
        holds = f"It begins anew {instant(budget.resets_at, now)}; a higher cap holds until then."
    until = instant(asked.expires_at, now)
    return [
        f"The budget ({name}) is spent: {money(budget.spent_usd)}{of}{reserved}.",
        holds,
        f"The turn is expected to cost {money(asked.needed_usd)}. It waits for an answer until {until}.",
    ]


def _dollars(word: str, budget: BudgetState) -> float | None:
    """Return the amount, or None after saying why it is none that would let the turn in."""
    read = _AMOUNT.fullmatch(word)
    if read is None:
        sys.stderr.write("  Expected an amount in dollars, for instance 12.50.\n")
        return None
    limit = float(read[1])
    gone = max(budget.spent_usd + budget.reserved_usd, budget.limit_usd or 0.0)
    if not gone < limit <= MOST_USD:
        sys.stderr.write(f"  Expected more than {money(gone)}, and at most ${MOST_USD}.\n")
        return None
    return limit
