import subprocess
import sys

import dragoman
import pytest


def python(code: str) -> str:
    # -S and an explicit path: what a site's own .pth files import is not our doing.
    code = f"import sys; sys.path[:0] = {[path for path in sys.path if path]!r}\n{code}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_importing_dragoman_imports_nothing_else() -> None:
    code = "before = set(sys.modules); import dragoman; print(sorted(set(sys.modules) - before))"
    assert python(code) == "['dragoman']"


def test_the_blocking_client_needs_no_asyncio() -> None:
    code = (
        "import dragoman; dragoman.connect; dragoman.errors\n"
        "print('asyncio' in sys.modules, 'msgspec' in sys.modules)"
    )
    assert python(code) == "False True"


def test_the_bare_commands_need_the_standard_library_alone() -> None:
    code = (
        "from dragoman.cli import main, rpc, locate, stdio\n"
        "heavy = {'msgspec', 'click', 'asyncio', 'typing', 'argparse'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert python(code) == "[]"


def test_names_are_loaded_when_asked_for() -> None:
    assert dragoman.aio.connect is not dragoman.connect
    assert dragoman.errors.DragomanError is dragoman.DragomanError
    assert set(dragoman.__all__) == set(dir(dragoman))
    for name in dragoman.__all__:
        assert getattr(dragoman, name) is not None
    assert dragoman.Client is dragoman.sync.Client


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Dragon'"):
        _ = dragoman.Dragon
