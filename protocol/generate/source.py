"""What the source of `dragoman_protocol` says and the running types do not: docstrings of fields, spellings.

A struct's field is documented by the string that stands below it; that string, the annotation and the default
as they are written are read from the source text.
"""

import ast
import importlib
import inspect
import re
from functools import cache
from typing import NamedTuple

import msgspec

VALUE_MODULES = (
    "values", "content", "auth", "agent", "model", "session", "query", "stream", "orchestrate",
    "breaker", "budget", "limits", "stats", "gateway", "lifecycle",
)  # fmt: skip
"""Modules whose types travel, in reading order; the data types of `errors` are added where needed."""


class Field(NamedTuple):
    """One field of a struct as it is written."""

    name: str
    wire: str
    annotation: str
    default: str | None
    """Source text; None: required."""
    doc: str
    module: str
    """Where the names in `annotation` are known."""


class Alias(NamedTuple):
    """A named union or literal, e.g. `PermissionMode`."""

    name: str
    module: str
    annotation: str
    doc: str


@cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of `dragoman_protocol.<module>`."""
    return ast.parse(inspect.getsource(importlib.import_module(f"dragoman_protocol.{module}")))


def doc_after(body: list[ast.stmt], index: int) -> str:
    """Return the docstring below the assignment at *index*, its lines joined; empty if there is none."""
    if index + 1 < len(body):
        node = body[index + 1]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return plain(" ".join(str(node.value.value).split()))
    return ""


@cache
def own_fields(struct: type[msgspec.Struct]) -> dict[str, Field]:
    """Return the fields that *struct* itself declares, by Python name."""
    module = struct.__module__.rpartition(".")[2]
    wire_names = {field.name: field.encode_name for field in msgspec.structs.fields(struct)}
    found: dict[str, Field] = {}
    for node in tree_of(module).body:
        if not (isinstance(node, ast.ClassDef) and node.name == struct.__name__):
            continue
        for index, line in enumerate(node.body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                name = line.target.id
                default = None if line.value is None else ast.unparse(line.value)
                found[name] = Field(name, wire_names[name], ast.unparse(line.annotation), default,
                                    doc_after(node.body, index), module)  # fmt: skip
    return found


@cache
def fields(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """Return all fields of *struct*, required ones first, else in the order of declaration, bases last."""
    found: dict[str, Field] = {}
    for owner in struct.__mro__:
        if issubclass(owner, msgspec.Struct) and owner is not msgspec.Struct:
            for name, field in own_fields(owner).items():
                found.setdefault(name, field)
    return tuple(sorted(found.values(), key=lambda field: field.default is not None))


@cache
def aliases(module: str) -> dict[str, Alias]:
    """Return the named unions and literals of *module* by name."""
    body = tree_of(module).body
    found: dict[str, Alias] = {}
    for index, node in enumerate(body):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, doc = node.targets[0].id, doc_after(body, index)
            if doc and name[0].isupper() and not name.isupper():
                found[name] = Alias(name, module, ast.unparse(node.value), doc)
    return found


@cache
def home_of(module: str, name: str) -> str:
    """Return the full name of the module in which *name*, as used in *module*, is defined."""
    for node in tree_of(module).body:
        if isinstance(node, ast.ImportFrom) and any(part.name == name for part in node.names):
            return f"dragoman_protocol.{node.module}" if node.level else str(node.module)
    return f"dragoman_protocol.{module}"


def names_in(annotation: str) -> list[str]:
    """Return the names used in *annotation*, without those of Python itself."""
    import builtins

    nodes = ast.walk(ast.parse(annotation, mode="eval"))
    return [node.id for node in nodes if isinstance(node, ast.Name) and not hasattr(builtins, node.id)]


_REQUIREMENTS = re.compile(r"\s*\((?:requirements )?\d\d\.\d+(?:(?:, | to )\d\d\.\d+)*\)")


def plain(doc: str) -> str:
    """Return *doc* without the numbers of requirements, which tell a reader of the protocol nothing."""
    return _REQUIREMENTS.sub("", doc)
