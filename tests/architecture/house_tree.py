"""Every source file as a syntax tree, with the names of what it imports."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = {
    "dragoman_protocol": "protocol/dragoman_protocol",
    "dragoman": "clients/python/dragoman",
    "dragomand": "daemon/dragomand",
    "dragoman_sim": "daemon/dragoman_sim",
    "generate": "protocol/generate",
}
"""Import name → folder."""


class Import(NamedTuple):
    """One imported name."""

    target: str
    """A module of ours, or the module named in the statement."""
    line: int
    typing: bool
    """Only for type checkers."""


class Module(NamedTuple):
    """One source file."""

    name: str
    path: str
    """In the checkout."""
    text: str
    tree: ast.Module
    imports: tuple[Import, ...]


Tree = Mapping[str, Module]


def parse(sources: Mapping[str, str]) -> Tree:
    """Parse sources by module name; a package's name ends in `.__init__`."""
    names = {name.removesuffix(".__init__") for name in sources}
    found = {}
    for name, text in sources.items():
        tree = ast.parse(text)
        imports = tuple(_imports(tree, name, names))
        found[name.removesuffix(".__init__")] = Module(name, _path(name), text, tree, imports)
    return found


@cache
def house() -> Tree:
    """Parse the whole checkout."""
    sources = {}
    for package, folder in PACKAGES.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            sources[".".join([package, *parts])] = file.read_text(encoding="utf-8")
    return parse(sources)


def _path(name: str) -> str:
    package, _, rest = name.partition(".")
    return f"{PACKAGES.get(package, package)}/{rest.replace('.', '/')}.py"


def _imports(tree: ast.Module, module: str, names: set[str]) -> Iterator[Import]:
    package = module.rpartition(".")[0].split(".")
    for node, typing in _walk(tree, typing=False):
        if isinstance(node, ast.Import):
            for part in node.names:
                yield Import(part.name, node.lineno, typing)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for part in node.names:
                inner = f"{base}.{part.name}"
                yield Import(inner if inner in names else base, node.lineno, typing)


def _walk(node: ast.AST, *, typing: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, typing
        below = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from _walk(child, typing=typing or below)
