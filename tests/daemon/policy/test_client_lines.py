"""The lines of one class: what they remember, and how long. How they are served: `test_fair_queue`."""

from collections.abc import Callable

from dragomand.policy.client_lines import MOST_AWAY, Entry, Lines


def joiner(lines: Lines[int]) -> Callable[[str, int], Entry[int]]:
    def join(client: str, item: int) -> Entry[int]:
        entry = Entry(item, lines.line(client), item, 1.0)
        lines.add(entry.line, entry)
        return entry

    return join


def test_who_comes_back_is_lifted_to_the_lowest_who_waits() -> None:
    lines: Lines[int] = Lines()
    join = joiner(lines)
    join("ann", 1)
    join("bob", 2)
    lines.charge("ann", 30.0)
    lines.charge("bob", 20.0)
    assert (lines.next().client, lines.floor()) == ("bob", 20.0)
    assert join("cem", 3).line.counter == 20.0


def test_who_comes_back_with_more_keeps_it() -> None:
    lines: Lines[int] = Lines()
    join = joiner(lines)
    lines.charge("ann", 50.0)
    join("bob", 1)
    assert join("ann", 2).line.counter == 50.0


def test_after_an_empty_line_the_last_one_who_left_is_the_measure() -> None:
    lines: Lines[int] = Lines()
    join = joiner(lines)
    lines.take(join("ann", 1))
    lines.charge("ann", 70.0)
    assert lines.floor() == 70.0
    assert join("bob", 2).line.counter == 70.0


def test_an_entry_taken_from_the_middle_is_skipped() -> None:
    lines: Lines[int] = Lines()
    join = joiner(lines)
    first, second = join("ann", 1), join("ann", 2)
    lines.take(first)
    assert lines.next().first() is second


def test_counters_of_clients_that_are_gone_are_forgotten_the_lowest_first() -> None:
    lines: Lines[int] = Lines()
    for n in range(5 * MOST_AWAY):
        lines.charge(f"c{n}", float(n))
    assert MOST_AWAY <= len(lines.away) <= 2 * MOST_AWAY
    assert lines.away[f"c{5 * MOST_AWAY - 1}"] == 5 * MOST_AWAY - 1


def test_outdated_entries_are_cleared_away() -> None:
    lines: Lines[int] = Lines()
    join = joiner(lines)
    entries = [join("ann", n) for n in range(1000)]
    join("bob", 1000)
    for entry in entries[1:]:
        lines.take(entry)
    for _ in range(1000):
        lines.charge("bob", 1.0)
    assert len(lines.lines["ann"].entries) < 50
    assert len(lines.heap) < 50
