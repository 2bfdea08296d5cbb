from typing import Any

import pytest
from dragoman.cli import app


def test_the_bare_commands_work_here_as_well(
    scripted: Any, home: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.listen(home.paths.socket)
    assert app.run(["rpc", "limits/state", "--no-start"]) == 0
    assert capsys.readouterr().out.startswith('{"running": 0')
    assert app.run(["locate", "--no-start"]) == 0
    assert app.run(["stdio", "--help"]) == 0
