"""What may stand at a place of a type, so that an error can say what was expected."""

import re
from collections.abc import Iterator
from typing import Any

_STEP = re.compile(r"\.(\w+)|\[[^\]]*\]")
_UNKNOWN = re.compile("Object contains unknown field `(.{1,64})`", re.DOTALL)
"""Longer ones are not compared with what is known: that takes time."""


def hint_at(kind: type, path: str, reason: str) -> str:
    """Return what msgspec's *reason* leaves out about *path* (`$.scopes[3]`) of a *kind*; empty if nothing.

    For a word that is none of a choice: the choice. For an unknown field: the known one most like it.
    """
    if reason.startswith("Invalid enum value"):
        words = [repr(word) for place in _places(kind, path) for word in getattr(place, "values", ())]
        return f"expected one of {', '.join(words)}" if words else ""
    unknown = _UNKNOWN.fullmatch(reason)
    if unknown is None:
        return ""
    import difflib  # costs milliseconds, like `inspect` below: not before something is wrong

    names = [field.encode_name for place in _places(kind, path) for field in getattr(place, "fields", ())]
    nearest = difflib.get_close_matches(unknown[1], names, 1)
    return f"did you mean `{nearest[0]}`?" if nearest else ""


def _places(kind: type, path: str) -> list[Any]:
    """Return msgspec's descriptions of what may be at *path*: several where a union is on the way."""
    from msgspec import inspect

    places = list(_alternatives(inspect.type_info(kind)))
    for step in _STEP.finditer(path):
        places = [inner for place in places for inner in _inside(place, step[1])]
    return places


def _inside(place: Any, name: str | None) -> Iterator[Any]:
    """Yield what may be in *place*: in the field *name*, or in each element without one."""
    if name is None:
        inner = getattr(place, "item_type", None) or getattr(place, "value_type", None)
        if inner is not None:
            yield from _alternatives(inner)
    for field in getattr(place, "fields", ()):
        if field.encode_name == name:
            yield from _alternatives(field.type)


def _alternatives(info: Any) -> Iterator[Any]:
    types = getattr(info, "types", None)
    if types is None:
        yield getattr(info, "type", info)
    else:
        for each in types:
            yield from _alternatives(each)
