import sys
import types
from collections.abc import Callable
from typing import Any

import pytest


def test_the_simulator_gets_its_arguments(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    module = types.ModuleType("dragoman_sim.__main__")
    module.main = lambda argv: given.append(argv) or 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dragoman_sim.__main__", module)
    assert run("sim", "--port", "0", "--script", "x").status == 7
    assert given == [["--port", "0", "--script", "x"]]


def test_the_demo_gets_its_options(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    module = types.ModuleType("dragoman.cli.demo")
    module.run = lambda **options: given.append(options) or 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dragoman.cli.demo", module)
    assert run("demo", "--keep", "--json").status == 5
    assert run("demo").status == 5
    assert given == [{"keep": True, "as_json": True}, {"keep": False, "as_json": False}]


@pytest.mark.parametrize(
    ("command", "module"), [("sim", "dragoman_sim.__main__"), ("demo", "dragoman.cli.demo")]
)
def test_without_the_daemons_packages_there_is_advice(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, command: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = run(command)
    assert done.status == 69
    assert "pip install 'dragoman[daemon]'" in done.err
