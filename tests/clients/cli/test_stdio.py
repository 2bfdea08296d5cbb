import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("arguments", [[], ["--stdio"]])
def test_bytes_are_passed_on(
    begin: Callable[..., Any], scripted: Any, home: Any, arguments: list[str]
) -> None:
    scripted.listen(home.paths.socket)
    process = begin("stdio", *arguments, stdin=subprocess.PIPE)
    out, err = process.communicate('{"jsonrpc":"2.0","id":1,"method":"limits/state"}\n', timeout=30)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["result"]["maxRunning"] == 8


def test_usage(run: Callable[..., Any]) -> None:
    assert run("stdio", "-h").status == 0
    done = run("stdio", "x")
    assert (done.status, done.out) == (2, "")
    assert "'x'" in done.err
