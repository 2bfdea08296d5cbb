"""Which folders a session may work in."""

import os
from pathlib import Path

import pytest
from dragomand.engine import working_directory
from dragomand.engine.errors import EngineError


def refused(cwd: str, roots: list[str]) -> tuple[str, str]:
    with pytest.raises(EngineError) as caught:
        working_directory.check(cwd, roots)
    assert caught.value.kind == "invalid_cwd"
    assert caught.value.data["path"] == cwd
    return caught.value.data["reason"], str(caught.value)


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    assert working_directory.check(str(tmp_path), []) == tmp_path
    assert working_directory.check(f"{tmp_path}/", [str(tmp_path)]) == tmp_path


def test_links_are_resolved(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    assert working_directory.check(str(tmp_path / "link"), []) == real


@pytest.mark.parametrize("cwd", ["", ".", "work", "~/work", "./x", "/a\0b"])
def test_it_is_absolute(cwd: str) -> None:
    reason, text = refused(cwd, [])
    assert reason == "not_absolute"
    assert "expected an absolute path" in text


def test_it_exists(tmp_path: Path) -> None:
    assert refused(str(tmp_path / "gone"), []) == (
        "missing",
        f"cwd {str(tmp_path / 'gone')!r} cannot be used: there is no such directory.",
    )


def test_it_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert refused(str(tmp_path / "file"), [])[0] == "not_a_directory"


def test_below_a_file_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    reason, text = refused(str(tmp_path / "file" / "below"), [])
    assert reason == "unreadable"
    assert "Not a directory" in text


def test_a_link_to_itself_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert refused(str(tmp_path / "loop"), [])[0] == "unreadable"


def test_it_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    reason, text = refused(str(tmp_path), [])
    assert reason == "not_owned"
    assert f"expected user {os.getuid() + 1}" in text


def test_it_lies_in_a_root(tmp_path: Path) -> None:
    for name in ("in", "in/side", "inside", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path / "other")
    roots = [str(tmp_path / "in"), str(tmp_path / "nowhere")]
    assert working_directory.check(str(tmp_path / "in"), roots)
    assert working_directory.check(str(tmp_path / "in" / "side"), roots)
    for outside in ("inside", "other", "in/../other", "in/out"):
        reason, text = refused(str(tmp_path / outside), roots)
        assert reason == "outside_roots"
        assert str(tmp_path / "in") in text


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert working_directory.check(str(tmp_path / "real"), [str(tmp_path / "root")])


def test_a_session_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    kept = str(tmp_path / "kept")
    for same in (None, kept, f"{kept}/", str(tmp_path / "link")):
        working_directory.check_same(same, kept)
    working_directory.check_same(kept, None)
    for other in (str(tmp_path), "relative", "/nul\0"):
        with pytest.raises(EngineError, match="this session works in") as caught:
            working_directory.check_same(other, kept)
        assert (caught.value.kind, caught.value.data["reason"]) == ("invalid_cwd", "other_session")
