"""How quantities are shown to people: bars, money, instants, spans."""

import time

WIDTH = 12
"""Cells of a bar."""


def bar(share: float, width: int = WIDTH) -> str:
    """Return *share* (0 to 1, what is beyond is cut) as a bar of *width* cells."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def money(usd: float) -> str:
    """Return US dollars with as many places as tell something."""
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def span(seconds: float) -> str:
    """Return a length of time, to two units: `2 d 3 h`, `5 min 20 s`, `4 s`."""
    left = max(0, round(seconds))
    parts = []
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def instant(at: float, now: float) -> str:
    """Return a time of day, with the date if it is another one, and how far away it is: `14:05 (in 2 h)`."""
    there, here = time.localtime(at), time.localtime(now)
    form = "%H:%M" if there[:3] == here[:3] else "%Y-%m-%d %H:%M"
    away = f"in {span(at - now)}" if at >= now else f"{span(now - at)} ago"
    return f"{time.strftime(form, there)} ({away})"


def count(number: int, thing: str) -> str:
    """Return a number and its thing: `1 turn`, `2 turns`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
