"""Generated files are current, and the command says so, or mends it."""

import subprocess
import sys
from pathlib import Path

import pytest
from generate import outputs  # type: ignore[import-not-found,unused-ignore]

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "protocol/generate", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_generated_files_are_current() -> None:
    checked = run("--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout == ""


def test_output_does_not_depend_on_chance() -> None:
    for path, render in outputs.OUTPUTS.items():
        assert render() == render(), path


def test_stale_and_missing_files_are_shown_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"a/one.md": "1\n2\n", "two.json": "{}\n", "three.py": "pass\n"}
    monkeypatch.setattr(outputs, "OUTPUTS", {path: lambda text=text: text for path, text in made.items()})
    (tmp_path / "two.json").write_text("{}\n")
    (tmp_path / "three.py").write_text("old\n")
    assert outputs.check(tmp_path) == 1
    told = capsys.readouterr().out
    assert "+1\n+2\n" in told
    assert "-old\n+pass\n" in told
    assert "two.json" not in told
    assert told.endswith("2 generated file(s) are stale. Run: python protocol/generate\n")
    assert not (tmp_path / "a").exists()

    assert outputs.write(tmp_path) == 0
    assert capsys.readouterr().out == "wrote a/one.md\nwrote three.py\n"
    assert {path: (tmp_path / path).read_text() for path in made} == made
    assert outputs.check(tmp_path) == 0
    assert outputs.write(tmp_path) == 0
    assert capsys.readouterr().out == ""


def test_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outputs, "ROOT", tmp_path)
    assert outputs.main(["--check"]) == 1
    assert outputs.main([]) == 0
    assert outputs.main(["--check"]) == 0
    with pytest.raises(SystemExit):
        outputs.main(["--unknown"])
