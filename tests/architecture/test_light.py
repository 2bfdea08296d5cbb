"""Importing the client loads next to nothing, the blocking one no asyncio; bare commands, Python alone."""

import ast
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from house_tree import PACKAGES, ROOT

# Without `site`, so that nothing is loaded but what the import itself asks for.
PATHS = [str((ROOT / PACKAGES[name]).parent) for name in ("dragoman", "dragoman_protocol", "dragomand")]
THIRD_PARTY = str(Path(msgspec.__file__).parents[1])
HEAVY = {
    "asyncio",
    "anyio",
    "click",
    "rich",
    "dragomand",
    "dragoman_sim",
    "claude_agent_sdk",
    "concurrent",
    "ssl",
}


def loaded_by(statement: str, *, third_party: bool = True) -> set[str]:
    """The top-level names of what *statement* loads in a new interpreter."""
    paths = [*PATHS, *([THIRD_PARTY] if third_party else [])]
    program = (
        f"import sys; sys.path[:0] = {paths!r}; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(ast.literal_eval(ran.stdout))


def tops(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_this_test_sees_what_is_loaded() -> None:
    assert "asyncio" in loaded_by("import asyncio")
    assert "asyncio" in loaded_by("import dragoman.aio")


def test_the_package_alone_loads_nothing() -> None:
    assert loaded_by("import dragoman") == {"dragoman"}


@pytest.mark.parametrize(
    "statement", ["import dragoman.sync", "import dragoman; dragoman.connect", "import dragoman.stubs"]
)
def test_the_blocking_client_loads_no_asyncio(statement: str) -> None:
    found = tops(loaded_by(statement))
    assert "msgspec" in found
    assert not found & HEAVY


@pytest.mark.parametrize(
    "module",
    [
        "dragoman.cli.main",
        "dragoman.cli.rpc",
        "dragoman.cli.stdio",
        "dragoman.cli.locate",
        "dragoman.forward",
    ],
)
def test_the_bare_commands_need_the_standard_library_alone(module: str) -> None:
    found = tops(loaded_by(f"import {module}", third_party=False))
    assert found <= {*sys.stdlib_module_names, "dragoman"}
    assert not found & HEAVY


def test_the_protocol_does_no_io() -> None:
    modules = [
        f"dragoman_protocol.{file.stem}" for file in (ROOT / PACKAGES["dragoman_protocol"]).glob("[a-z]*.py")
    ]
    assert not tops(loaded_by("import " + ", ".join(modules))) & {*HEAVY, "socket", "subprocess", "threading"}
