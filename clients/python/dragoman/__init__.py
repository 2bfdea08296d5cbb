"""Talk to the user's one Claude, through the Dragoman daemon, which is found or started by itself.

    import dragoman

    with dragoman.connect() as claude:
        print(claude.query("What does this folder contain?").text)
        for event in claude.stream("And its tests?"):
            print(event)

Importing this package imports nothing else: `connect`, `query` and `stream` load the blocking client when
they are first used, `dragoman.aio` the asyncio one, `dragoman.errors` the classes of errors,
`dragoman.options` and `dragoman.agents` build options and agents, `dragoman.content` reads answers.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dragoman import agents, aio, content, errors, options
    from dragoman.sync import Client, Stream, connect, query, stream

__all__ = [
    "Client",
    "DragomanError",
    "Stream",
    "__version__",
    "agents",
    "aio",
    "connect",
    "content",
    "errors",
    "options",
    "query",
    "stream",
]

__version__ = "0.1.0"

_LAZY = {"Client": "sync", "Stream": "sync", "connect": "sync", "query": "sync", "stream": "sync"}
_MODULES = ("agents", "aio", "content", "errors", "options")


class DragomanError(Exception):
    """Base of everything that this package raises on purpose; `dragoman.errors` has the tree."""

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, unchanged."""
        return False


def __getattr__(name: str) -> object:
    """Load what is asked for when it is first asked for."""
    if name not in _LAZY and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
