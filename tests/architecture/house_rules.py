"""The rules of the house: each takes a tree and returns what breaks it, one line each."""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from house_tree import Import, Module, Tree

VALUES = frozenset(
    f"dragoman_protocol.{name}"
    for name in (
        "values",
        "content",
        "auth",
        "agent",
        "model",
        "session",
        "query",
        "stream",
        "orchestrate",
        "breaker",
        "budget",
        "limits",
        "stats",
        "gateway",
        "lifecycle",
    )
)
"""The value modules. What else is in `dragoman_protocol` is its RPC half."""

RPC = "dragoman_protocol"
FIRST_PARTY = frozenset(["dragoman_protocol", "dragoman", "dragomand", "dragoman_sim", "generate"])


class Rule(NamedTuple):
    """What the modules of one room may import of ours; of others, everything but `never`."""

    room: str
    allowed: tuple[str, ...]
    """Prefixes, a trailing `!` for this module only; `VALUES` for the value modules."""
    never: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    """Of others, nothing but these (None: anything)."""


_CLOCK_AND_CHANCE = ("time", "datetime", "random", "secrets", "uuid")
_SYSTEM = ("os", "socket", "asyncio", "threading", "subprocess", "select", "selectors", "signal", "logging",
           "multiprocessing", "concurrent", "anyio", "tempfile", "pathlib", "io", "queue")  # fmt: skip
_STDLIB = tuple(sorted(sys.stdlib_module_names))

_PURE = ("__future__", "bisect", "collections", "dataclasses", "enum", "functools", "heapq", "itertools",
         "math", "typing")  # fmt: skip

RULES = (
    Rule(RPC, (RPC,), (*_CLOCK_AND_CHANCE, *_SYSTEM), (*_STDLIB, "msgspec")),
    Rule("generate", ("generate", RPC), (), (*_STDLIB, "msgspec")),
    Rule("dragoman", ("dragoman", RPC)),
    Rule("dragoman.cli", ("dragoman", RPC, "dragoman_sim")),
    Rule("dragoman_sim", ("dragoman_sim",)),
    Rule("dragomand.policy", ("dragomand.policy",), (), _PURE),
    Rule("dragomand.store", ("dragomand.store",)),
    Rule(
        "dragomand.upstream",
        ("dragomand.upstream", "dragomand.process", "dragomand.telemetry.redaction", "VALUES"),
    ),
    Rule(
        "dragomand.engine",
        ("dragomand.engine", "dragomand.policy", "dragomand.store", "dragomand.upstream.interface",
         "dragomand.upstream.limits_heard", f"{RPC}!", "VALUES"),
    ),
    Rule(
        "dragomand.gateway",
        ("dragomand.gateway", "dragomand.engine", "dragomand.upstream.interface",
         "dragomand.upstream.limits_heard", "dragomand.upstream.limit_headers", "dragomand.upstream.failures",
         "dragomand.upstream.endpoint", "dragomand.upstream.models", "dragoman.locate", "VALUES"),
    ),
    Rule("dragomand.transport", ("dragomand.transport", "dragoman.locate")),
    Rule(
        "dragomand.server",
        ("dragomand.server", "dragomand.transport", f"{RPC}!", f"{RPC}.values", f"{RPC}.lifecycle",
         f"{RPC}.errors", f"{RPC}.wire", f"{RPC}.codec", f"{RPC}.peer"),
    ),
    Rule(
        "dragomand.handlers",
        ("dragomand.handlers", "dragomand.engine", "dragomand.server.route", f"{RPC}!", f"{RPC}.errors",
         "VALUES"),
    ),
    Rule("dragomand.process", ("dragomand.process", "dragoman.locate", "dragoman.launch")),
    Rule(
        "dragomand.telemetry",
        ("dragomand.telemetry", "dragomand.settings", "dragomand.process", "dragoman.locate"),
    ),
)  # fmt: skip
"""What is not in a room (`app`, `life`, `run`, `config`) is held by the other rules alone."""

COLUMNS = {
    "the RPC column": ("dragomand.transport", "dragomand.server"),
    "the domain column": ("dragomand.policy", "dragomand.store", "dragomand.upstream", "dragomand.engine"),
}
MEETING = ("dragomand.handlers", "dragomand.faces", "dragomand.app")
"""Where the columns meet."""


def within(name: str, prefix: str) -> bool:
    """Tell whether module *name* is *prefix* or below it."""
    return name == prefix or name.startswith(prefix + ".")


def room_of(name: str) -> Rule | None:
    """Return the rule for module *name*: that of the innermost room it is in."""
    rules = [rule for rule in RULES if within(name, rule.room)]
    return max(rules, key=lambda rule: len(rule.room), default=None)


# -- imports


def wrong_imports(tree: Tree) -> list[str]:
    """Invariants 1 to 6: what a room imports and may not."""
    found = []
    for name, module in tree.items():
        rule = room_of(name)
        for imported in module.imports if rule is not None else ():
            assert rule is not None
            if not _may_import(rule, imported):
                found.append(f"{module.path}:{imported.line}: {rule.room} must not import {imported.target}")
    return found


def _may_import(rule: Rule, imported: Import) -> bool:
    target = imported.target
    top = target.partition(".")[0]
    if top in FIRST_PARTY:
        return any(_fits(target, prefix) for prefix in rule.allowed)
    if top in rule.never:
        return False
    return rule.only is None or top in rule.only


def _fits(target: str, prefix: str) -> bool:
    if prefix == "VALUES":
        return target in VALUES
    return target == prefix[:-1] if prefix.endswith("!") else within(target, prefix)


def values_that_know_rpc(tree: Tree) -> list[str]:
    """Invariant 1: value modules import no RPC module."""
    return [
        f"{module.path}:{imported.line}: a value module must not import {imported.target}"
        for name, module in tree.items()
        if name in VALUES
        for imported in module.imports
        if within(imported.target, RPC) and imported.target not in VALUES
    ]


def both_columns(tree: Tree) -> list[str]:
    """Only the meeting rooms know both columns."""
    found = []
    for name, module in tree.items():
        if not within(name, "dragomand") or any(within(name, room) for room in MEETING):
            continue
        known = [name, *(imported.target for imported in module.imports)]
        seen = {
            column
            for column, rooms in COLUMNS.items()
            if any(within(target, room) for target in known for room in rooms)
        }
        if len(seen) > 1:
            found.append(f"{module.path}: knows both {' and '.join(sorted(seen))}")
    return found


def cycles(tree: Tree) -> list[str]:
    """Invariant 13: modules that import each other in a ring, at once or later, but for type checkers."""
    graph = {
        name: sorted(
            {imported.target for imported in module.imports if not imported.typing} & tree.keys() - {name}
        )
        for name, module in tree.items()
    }
    found: list[str] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" → ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in graph[name]:
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


# -- state


_VALUE_BASES = frozenset(
    ["NamedTuple", "Struct", "Value", "Params", "Enum", "StrEnum", "IntEnum", "Exception", "Protocol"]
)
_STATEFUL = frozenset(
    ["asyncio", "anyio", "threading", "queue", "multiprocessing", "aiosqlite", "sqlite3", "socket",
     "subprocess", "contextvars", "weakref"]
)  # fmt: skip
_EMPTY_CALLS = frozenset(
    ["dict", "list", "set", "deque", "defaultdict", "OrderedDict", "bytearray", "Counter"]
)


def shared_state(tree: Tree) -> list[str]:
    """Invariant 7, as far as can be told: nothing with a state of its own is made by importing a module."""
    stateful = _stateful_classes(tree)
    return [f"{module.path}:{line}: {what}"
            for module in tree.values() for line, what in _state_of(module, stateful)]  # fmt: skip


def _stateful_classes(tree: Tree) -> set[str]:
    """Classes of ours whose instances keep something: they assign to `self`, or a base of theirs does."""
    classes = [
        node for module in tree.values() for node in module.tree.body if isinstance(node, ast.ClassDef)
    ]
    stateful = {node.name for node in classes if any(_assigns_to_self(part) for part in ast.walk(node))}
    values = {node.name for node in classes if any(_last(base) in _VALUE_BASES for base in node.bases)}
    for _ in range(5):  # as deep as bases are nested
        stateful |= {node.name for node in classes if any(_last(base) in stateful for base in node.bases)}
        values |= {node.name for node in classes if any(_last(base) in values for base in node.bases)}
    return stateful - values


def _assigns_to_self(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and ast.unparse(node.value) == "self"
    )


def _state_of(module: Module, stateful: set[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            yield node.lineno, f"`global {', '.join(node.names)}` changes a module's state"
    for node in module.tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Await)):
            yield node.lineno, f"`{ast.unparse(node)[:60]}` runs on import"
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        if isinstance(value, (ast.Dict, ast.List)) and not ast.unparse(value)[1:-1]:
            yield node.lineno, f"`{ast.unparse(node)[:60]}` is empty, so it will be filled"
        if isinstance(value, ast.Call):
            name, top = _last(value.func), ast.unparse(value.func).partition(".")[0]
            ours = name in stateful and top != "msgspec"
            if ours or top in _STATEFUL or (name in _EMPTY_CALLS and not value.args):
                yield node.lineno, f"`{ast.unparse(node)[:60]}` is made by importing the module"


def _last(node: ast.expr) -> str:
    return ast.unparse(node).partition("[")[0].rpartition(".")[2]


# -- names, docs, sizes


_FORBIDDEN = frozenset(["util", "helper", "common", "manager", "service", "base", "core"])


def forbidden_names(tree: Tree) -> list[str]:
    """Invariant 13: files, folders and classes whose name says nothing."""
    found = []
    for name, module in tree.items():
        if _words(name) & _FORBIDDEN:
            found.append(f"{module.path}: the name says nothing")
        classes = [node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
        found += [f"{module.path}:{node.lineno}: the name of class {node.name} says nothing"
                  for node in classes if _words(node.name) & _FORBIDDEN]  # fmt: skip
    return found


def _words(name: str) -> set[str]:
    words = re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    return {word.lower().removesuffix("s") for word in words}


def undocumented(tree: Tree) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    return [f"{module.path}:{line}: {what} has no docstring"
            for module in tree.values() for line, what in _undocumented_in(module)]  # fmt: skip


def _undocumented_in(module: Module) -> Iterator[tuple[int, str]]:
    if not ast.get_docstring(module.tree):
        yield 1, "the module"
    yield from _undocumented_definitions(module.tree.body, "")


def _undocumented_definitions(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[int, str]]:
    for node in body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        private = node.name.startswith("_") and node.name != "__init__"
        extra = any(ast.unparse(by).endswith(("overload", ".setter")) for by in node.decorator_list)
        if private or extra or prefix.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.lineno, f"`{prefix}{node.name}`"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented_definitions(node.body, f"{node.name}.")


def _is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def long_files(tree: Tree, limit: int = 400) -> dict[str, int]:
    """Files with more than *limit* lines."""
    sizes = {module.path: module.text.count("\n") for module in tree.values()}
    return {path: size for path, size in sizes.items() if size > limit}


def long_functions(tree: Tree, limit: int = 40) -> dict[str, int]:
    """Functions of more than *limit* lines of statements; docstring and inner functions are not counted."""
    found = {}
    for module in tree.values():
        for name, size in _function_sizes(module.tree.body, ""):
            if size > limit:
                found[f"{module.path}:{name}"] = size
    return found


def _function_sizes(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, int]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _function_sizes(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            statements = node.body[1:] if ast.get_docstring(node) else node.body
            inner = [child for child in ast.walk(node) if child is not node
                     and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))]  # fmt: skip
            outermost = [child for child in inner if not any(_contains(other, child) for other in inner)]
            span = (node.end_lineno or 0) - statements[0].lineno + 1 if statements else 0
            yield f"{prefix}{node.name}", span - sum(_span(child) for child in outermost)
            yield from _function_sizes(outermost, f"{prefix}{node.name}.")


def _span(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def _contains(outer: ast.AST, inner: ast.AST) -> bool:
    return outer is not inner and any(child is inner for child in ast.walk(outer))


# -- tests


def test_file_of(module: Module) -> str | None:
    """Return where the tests of *module* belong; None: it says nothing that could be wrong."""
    if all(_is_text(node) for node in module.tree.body):
        return None
    package, *parts = module.name.split(".")
    folders: Mapping[str, str] = {
        "dragoman_protocol": "tests/protocol",
        "generate": "tests/protocol/generate",
        "dragoman": "tests/clients",
        "dragomand": "tests/daemon",
        "dragoman_sim": "tests/sim",
    }
    stem = parts[-1].strip("_")
    return "/".join([folders[package], *parts[:-1], f"test_{stem}.py"])


test_file_of.__test__ = False  # type: ignore[attr-defined]  # its name is a matter of its own
