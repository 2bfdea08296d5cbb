"""The rules hold in the checkout, with the few exceptions that are named here, each with its reason."""

import pytest
from house_rules import (
    both_columns,
    cycles,
    forbidden_names,
    long_files,
    long_functions,
    shared_state,
    test_file_of,
    undocumented,
    values_that_know_rpc,
    wrong_imports,
)
from house_tree import ROOT, house

LONG_FILES = {
    "clients/python/dragoman/stubs.py": "generated",
}

LONG_FUNCTIONS: dict[str, str] = {
    "clients/python/dragoman/stubs.py:Calls.query_run": "generated: one line a parameter",
    "clients/python/dragoman/stubs.py:AsyncCalls.query_run": "generated: one line a parameter",
}

TESTED_ELSEWHERE = {
    **dict.fromkeys(
        (
            f"protocol/dragoman_protocol/{name}.py"
            for name in (
                "auth", "breaker", "budget", "gateway", "lifecycle", "limits", "orchestrate", "query",
                "session", "stats", "stream",
            )
        ),
        ("tests/protocol/test_examples.py", "declarations only; the rules for them are in test_methods"),
    ),
    "protocol/dragoman_protocol/__init__.py": ("tests/protocol/test_methods.py", "two version numbers"),
    "protocol/generate/__main__.py": ("tests/protocol/generate/test_outputs.py", "run as a program there"),
    "daemon/dragomand/upstream/messages_api/__init__.py": (
        "tests/daemon/upstream/messages_api/test_client.py",
        "names of other modules",
    ),
    "clients/python/dragoman/stubs.py": ("tests/protocol/generate/test_stubs.py", "generated"),
    "clients/python/dragoman/cli/demo.py": ("tests/process/test_demo.py", "a program that checks itself"),
    "daemon/dragomand/__main__.py": ("tests/process/test_start.py", "run as a program there"),
    "daemon/dragomand/app.py": ("tests/transcripts/test_transcripts.py", "each needs all of it"),
    "daemon/dragomand/domain.py": ("tests/transcripts/test_transcripts.py", "each needs all of it"),
    "daemon/dragomand/outside.py": ("tests/transcripts/test_transcripts.py", "each needs all of it"),
    "daemon/dragomand/settings.py": ("tests/daemon/test_config_doc.py", "declarations, which are read there"),
    "daemon/dragomand/engine/asking.py": ("tests/daemon/engine/test_queries.py", "every query goes there"),
    "daemon/dragomand/engine/call.py": ("tests/daemon/engine/test_calls.py", "what its owner hands out"),
    "daemon/dragomand/engine/notices.py": ("tests/daemon/handlers/test_notices.py", "one union"),
    "daemon/dragomand/engine/query_limits.py": ("tests/daemon/engine/test_query_ends.py", "held there"),
    "daemon/dragomand/engine/spend.py": ("tests/daemon/engine/test_budgets.py", "what its owner hands out"),
    "daemon/dragomand/engine/turn_end.py": ("tests/daemon/engine/test_query_ends.py", "every way to end"),
    **dict.fromkeys(
        (
            f"daemon/dragomand/engine/admission/{name}.py"
            for name in ("__init__", "lane", "permit", "refusals", "settings")
        ),
        ("tests/daemon/engine/admission/test_line.py", "parts of a line; none does anything alone"),
    ),
    **dict.fromkeys(
        (f"daemon/dragomand/engine/admission/{name}.py" for name in ("call_gate", "pool", "turn_gate")),
        ("tests/daemon/engine/admission/test_door.py", "what they decide shows in who is let in"),
    ),
    "daemon/dragomand/run.py": ("tests/process/test_stop.py", "run in a process of its own"),
    "daemon/dragomand/upstream/interface.py": ("tests/daemon/engine/test_turn.py", "declarations only"),
    "daemon/dragomand/upstream/claude_code/__init__.py": (
        "tests/daemon/upstream/claude_code/test_claude.py", "two names",
    ),
    "daemon/dragoman_sim/__init__.py": ("tests/sim/test_simulator.py", "names, and loading them late"),
}  # fmt: skip
"""Source file → where its tests are, and why there."""


def told(found: list[str]) -> str:
    return "\n".join(["", *sorted(found)])


RULES = {
    "a room imports what it may (invariants 1 to 6, 10)": wrong_imports,
    "value modules know no RPC (1)": values_that_know_rpc,
    "only handlers, faces and app know both columns": both_columns,
    "importing a module makes nothing with a state (7)": shared_state,
    "no import cycles (13)": cycles,
    "no names that say nothing (13)": forbidden_names,
    "public names have docstrings": undocumented,
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rule(rule) -> None:  # type: ignore[no-untyped-def]  # ids read better than a union of callables
    found = rule(house())
    assert not found, told(found)


def test_files_are_short() -> None:
    long = long_files(house())
    assert long.keys() - LONG_FILES.keys() == set(), long
    assert LONG_FILES.keys() - long.keys() == set(), "these are short now: take them off the table"


def test_functions_are_short() -> None:
    long = long_functions(house())
    assert long.keys() - LONG_FUNCTIONS.keys() == set(), long
    assert LONG_FUNCTIONS.keys() - long.keys() == set(), "these are short now: take them off the table"


def test_every_source_file_has_its_test_file() -> None:
    missing = []
    for module in house().values():
        wanted = test_file_of(module)
        if module.path in TESTED_ELSEWHERE:
            wanted = TESTED_ELSEWHERE[module.path][0]
        if wanted is not None and not (ROOT / wanted).exists():
            missing.append(f"{module.path}: {wanted} does not exist")
    assert not missing, told(missing)


def test_table_of_test_files_is_needed() -> None:
    paths = {module.path: module for module in house().values()}
    for path in TESTED_ELSEWHERE:
        wanted = test_file_of(paths[path])
        assert wanted is not None, path
        assert not (ROOT / wanted).exists(), f"{wanted} exists: take {path} off the table"
