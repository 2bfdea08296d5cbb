"""`vscode-jsonrpc` in Node.js, over the socket: initialize, a query with progress, a cancel, shutdown."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from dragoman.launch import ensure_daemon
from dragoman.locate import find_paths
from dragoman_sim import Simulator

HERE = Path(__file__).parent / "node"


@pytest.mark.node
@pytest.mark.timeout(300)
async def test_vscode_jsonrpc_asks_watches_cancels_and_leaves(
    env: dict[str, str], sim: Simulator, tmp_path: Path
) -> None:
    package = tmp_path / "node"
    shutil.copytree(HERE, package, ignore=shutil.ignore_patterns("node_modules"))
    await _run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=package)
    paths = find_paths(env)
    (await asyncio.to_thread(ensure_daemon, paths, env)).close()
    told = json.loads(await _run("node", "client.cjs", paths.socket, str(tmp_path / "work"), cwd=package))
    assert told == {
        "server": "dragoman",
        "text": "Hello to you.",
        "kinds": ["turnStarted", "userMessage", "textDelta", "assistantText", "usage", "turnCompleted"],
        "streamed": "Hello to you.",
        "cancelled": {"code": -32800, "kind": "request_cancelled", "text": "1, 2, 3, "},
        "unknown": {"code": -32601, "kind": "method_not_found"},
    }
    assert (await sim.wait_for(1)).from_claude_code


async def _run(*command: str, cwd: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode == 0, err.decode()
    return out.decode()
