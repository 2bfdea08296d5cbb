import os
import stat
from pathlib import Path

import pytest
from dragoman.locate import Paths, find_paths
from dragomand.process.paths import FolderError, UntrustedError, prepare


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_all_folders_are_made_private(bare_paths: Paths) -> None:
    before = os.umask(0)
    try:
        prepare(bare_paths)
        prepare(bare_paths)
    finally:
        os.umask(before)
    for folder in (bare_paths.state_dir, bare_paths.log_dir, bare_paths.runtime_dir):
        assert mode(folder) == 0o700


def test_the_umask_stays_as_it_is(bare_paths: Paths) -> None:
    before = os.umask(0o027)
    try:
        prepare(bare_paths)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_under_the_runtime_directory_of_the_login(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    paths = find_paths({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)})
    prepare(paths)
    assert mode(str(runtime / "dragoman")) == 0o700
    assert mode(paths.runtime_dir) == 0o700
    os.chmod(runtime / "dragoman", 0o755)
    with pytest.raises(UntrustedError, match="chmod 700"):
        prepare(paths)


def test_a_runtime_directory_of_the_system_s_is_not_made_in_its_place(tmp_path: Path) -> None:
    paths = find_paths({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "gone")})
    with pytest.raises(FolderError, match=r"XDG_RUNTIME_DIR names .*gone, which is not a directory.*Unset"):
        prepare(paths)
    assert not (tmp_path / "gone").exists()


def test_what_cannot_be_made_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    paths = find_paths({"HOME": "/", "XDG_STATE_HOME": str(tmp_path / "file")})
    with pytest.raises(
        FolderError, match=r"cannot be made \(Not a directory\)\. Check XDG_STATE_HOME or HOME"
    ):
        prepare(paths)


def test_a_file_where_a_folder_should_be(paths: Paths) -> None:
    os.rmdir(paths.log_dir)
    Path(paths.log_dir).touch()
    with pytest.raises(UntrustedError, match="not a directory"):
        prepare(paths)


def test_a_link_to_elsewhere_is_not_followed(bare_paths: Paths, tmp_path: Path) -> None:
    os.makedirs(os.path.dirname(bare_paths.state_dir))
    (tmp_path / "other").mkdir(mode=0o700)
    os.symlink(tmp_path / "other", bare_paths.state_dir)
    with pytest.raises(UntrustedError, match="symbolic link"):
        prepare(bare_paths)
