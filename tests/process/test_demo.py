"""The demo, as a user runs it: with the real Claude Code, in a home of its own, leaving nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path


def run_demo(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COVERAGE")
    }
    env = {
        **kept,
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "ANTHROPIC_API_KEY": "sk-ant-api03-not-for-the-demo",
    }
    command = [sys.executable, "-m", "dragoman.cli.main", "demo", *arguments]
    return subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )


def test_the_demo_shows_the_main_job_and_cleans_up(tmp_path: Path) -> None:
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (
        "both connected",
        "interpreter between peoples",
        "The client says yes",
        "stopped",
        "All of it worked",
    ):
        assert word in done.stdout
    assert "\x1b" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_demo_s_outcome_as_json(tmp_path: Path) -> None:
    done = run_demo(tmp_path, "--json", "--keep")
    outcome = json.loads(done.stdout)
    assert outcome["ok"] is True
    assert outcome["claudeVersion"].count(".") == 2
    folder = Path(outcome["folder"])
    assert (folder / "project" / "dragoman.txt").read_text().startswith("A dragoman is an interpreter")
