"""Every transcript, in memory, over the socket, and through `dragoman stdio`."""

from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*/*.md"))
EVERY_WAY = ("query/ask", "session/restart")
"""Those that take every way with each run of the tests; the others go by memory, and in the slow set."""


def case(path: Path, mode: str) -> Any:
    """One transcript on one way."""
    name = f"{path.parent.name}/{path.stem}"
    slow = mode != "memory" and name not in EVERY_WAY
    return pytest.param(path, mode, id=f"{name}-{mode}", marks=[pytest.mark.slow] if slow else [])


CASES = [case(path, mode) for path in FILES for mode in ("memory", "socket", "stdio")]


@pytest.mark.parametrize(("path", "mode"), CASES)
async def test_transcript(path: Path, mode: str, play: Any) -> None:
    assert await play(path, mode) > 1


async def test_a_daemon_that_says_something_else_fails_the_transcript(tmp_path: Path, play: Any) -> None:
    wrong = tmp_path / "wrong.md"
    wrong.write_text(
        '→ {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}\n'
        '← {"id": 1, "result": {"protocolVersion": 2}}\n'
    )
    with pytest.raises(AssertionError, match=r"wrong.md:2.*\n.*protocolVersion: expected 2"):
        await play(wrong, "memory")
