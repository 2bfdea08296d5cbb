"""Which files are generated, writing them, and telling when one is stale."""

import argparse
import difflib
import sys
from collections.abc import Callable
from pathlib import Path

import generate
from generate import openrpc, reference, schema, stubs

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

OUTPUTS: dict[str, Callable[[], str]] = {
    "protocol/schema/dragoman.schema.json": schema.render,
    "protocol/schema/openrpc.json": openrpc.render,
    "protocol/reference.md": reference.render,
    "clients/python/dragoman/stubs.py": stubs.render,
}
"""Path in the checkout → what makes its text."""


def main(argv: list[str]) -> int:
    """Write the generated files, or with `--check` print what would change; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python protocol/generate", description=generate.__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is stale")
    arguments = parser.parse_args(argv)
    return check(ROOT) if arguments.check else write(ROOT)


def write(root: Path) -> int:
    """Write every generated file below *root* that is not current, and name it."""
    for path, render in OUTPUTS.items():
        file, text = root / path, render()
        if _read(file) != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 0


def check(root: Path) -> int:
    """Print the difference of every stale file and the command that mends it; 1 if there is one."""
    stale = 0
    for path, render in OUTPUTS.items():
        old, new = _read(root / path), render()
        if old != new:
            stale += 1
            before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(before, after, path, f"{path} (generated now)"))
    if stale:
        print(f"\n{stale} generated file(s) are stale. Run: python protocol/generate")
    return 1 if stale else 0


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
