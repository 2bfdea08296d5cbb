"""Which executable is started."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from dragomand.upstream.claude_code.executable import find_bundled, find_executable
from dragomand.upstream.interface import UpstreamError


def program(path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def nothing_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def test_the_setting_comes_first(tmp_path: Path) -> None:
    own = program(tmp_path / "my-claude")
    assert find_executable(own, None) == own


def test_a_setting_that_cannot_be_used_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    for setting, why in [
        ("claude", "absolute"),
        (f"{tmp_path}/nowhere", "does not exist"),
        (f"{tmp_path}/plain", "is not executable"),
        (str(tmp_path), "is not executable"),
    ]:
        with pytest.raises(UpstreamError) as caught:
            find_executable(setting, None)
        assert caught.value.failure.category == "missing"
        assert why in caught.value.failure.message
        assert "claude.path" in caught.value.failure.message


def test_the_bundled_one_is_next(tmp_path: Path) -> None:
    program(tmp_path / "claude")
    found = find_executable(None, str(tmp_path))
    assert found == find_executable("", None) == find_bundled()
    assert found.endswith("claude_agent_sdk/_bundled/claude")


@pytest.mark.usefixtures("nothing_bundled")
def test_path_is_last(tmp_path: Path) -> None:
    first, second = program(tmp_path / "a" / "claude"), program(tmp_path / "b" / "claude")
    assert find_executable(None, f"{tmp_path}/none:{tmp_path}/a:{tmp_path}/b") == first
    assert find_executable(None, f"{tmp_path}/b:{tmp_path}/a") == second


@pytest.mark.usefixtures("nothing_bundled")
@pytest.mark.parametrize("path", [None, "", ".", "bin:", "/nowhere"])
def test_relative_folders_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    program(tmp_path / "claude")
    program(tmp_path / "bin" / "claude")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UpstreamError) as caught:
        find_executable(None, path)
    assert caught.value.failure.category == "missing"
    assert "pip install 'dragoman[daemon]'" in caught.value.failure.message


def test_an_sdk_without_an_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "claude_agent_sdk"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "claude_agent_sdk", raising=False)
    importlib.invalidate_caches()
    assert find_bundled() is None


def test_the_sdk_is_not_imported() -> None:
    script = (
        "import sys\nfrom dragomand.upstream.claude_code.executable import find_bundled\n"
        "assert find_bundled()\nprint('claude_agent_sdk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"False\n"
