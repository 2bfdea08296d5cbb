"""Starting and finding the real daemon, with the real commands."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dragoman.locate import connect, read_record

MANY = [sys.executable, "-P", str(Path(__file__).parents[1] / "clients" / "many_clients.py")]
INITIALIZE = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n'


def test_locate_starts_one_and_finds_it_again(
    home: Any, record_testsuite_property: Callable[[str, object], None]
) -> None:
    began = time.monotonic()
    place = home.locate()
    record_testsuite_property("locate_cold_ms", round((time.monotonic() - began) * 1000))
    assert place["socket"] == home.paths.socket
    assert place == home.locate()
    record = read_record(home.paths)
    assert (record["pid"], record["version"]) == (place["pid"], place["version"])
    assert home.said().count("ready") == 1


def test_only_the_user_can_reach_what_it_made(home: Any) -> None:
    home.locate()
    for folder in (home.paths.state_dir, home.paths.log_dir, home.paths.runtime_dir):
        assert os.stat(folder).st_mode & 0o777 == 0o700
    files = [home.paths.database, home.paths.lock_file, home.paths.log_file, home.paths.socket]
    assert [os.stat(file).st_mode & 0o777 for file in files] == [0o600] * 4


def test_stdio_speaks_to_the_shared_daemon(home: Any) -> None:
    one, two = home.stdio(), home.stdio()
    answers = []
    for process in (one, two):
        said, complaints = process.communicate(INITIALIZE, timeout=60)
        assert (complaints, process.returncode) == (b"", 0)
        answers.append(json.loads(said)["result"])
    assert answers[0]["serverInfo"]["name"] == "dragoman"
    assert answers[0]["connectionId"] != answers[1]["connectionId"]
    assert home.said().count("ready") == 1


def test_a_hundred_clients_on_a_cold_machine_get_one_daemon(home: Any) -> None:
    done = subprocess.run(
        [*MANY, "100"], env=home.env, capture_output=True, text=True, check=True, timeout=110
    )
    assert done.stdout == "100 of 100\n"
    assert home.said().count("ready") == 1


def test_after_a_kill_the_next_start_is_as_the_first(home: Any) -> None:
    pids = set()
    for count in (1, 2, 3):
        pids.add(home.locate()["pid"])
        home.kill()
        assert os.path.exists(home.paths.socket), "the dead leave their socket, and that must do no harm"
        assert home.said().count("ready") == count
    assert len(pids) == 3


@pytest.mark.parametrize("runtime", [True, False])
def test_home_and_xdg_alone_part_two_daemons(
    new_home: Callable[..., Any], runtime: bool, tmp_path: Path
) -> None:
    one, two = new_home(runtime=runtime), new_home(runtime=runtime)
    three = new_home(runtime=True)
    three.env |= {"HOME": one.env["HOME"], "XDG_STATE_HOME": str(tmp_path / "state")}
    three.env.pop("XDG_RUNTIME_DIR")
    three.paths = type(one.paths)(
        str(tmp_path / "state/dragoman"), str(tmp_path / "state/dragoman/run"), one.paths.config_file
    )
    places = [each.locate() for each in (one, two, three)]
    assert len({place["pid"] for place in places}) == 3
    assert [place["socket"] for place in places] == [each.paths.socket for each in (one, two, three)]


def test_with_and_without_a_runtime_directory_it_is_the_same_daemon(home: Any) -> None:
    """A desktop session has one and cron has none: one database, so one daemon."""
    place = home.locate()
    del home.env["XDG_RUNTIME_DIR"]
    assert home.locate() == place


# --- what stops a start, in words


def refused(home: Any) -> str:
    """Try to start by `locate` and by `stdio`, and return what both said."""
    done = home.dragoman("locate")
    assert (done.returncode, done.stdout) == (69, "")
    process = home.stdio()
    said, complaints = process.communicate(INITIALIZE, timeout=60)
    assert (said, process.returncode) == (b"", 69)
    text = str(done.stderr).removeprefix("dragoman locate: ")
    assert complaints.decode().removeprefix("dragoman stdio: ") == text
    return text


def test_a_setting_that_cannot_be_used(home: Any) -> None:
    config = Path(home.paths.config_file)
    config.parent.mkdir(parents=True)
    config.write_text("[daemon]\nidleExit = 5\n")
    config.chmod(0o600)
    home.env["DRAGOMAN_LIMITS__MAX_RUNNING"] = "many"
    assert refused(home).splitlines() == [
        f"{config}: daemon.idleExit is not known. Did you mean daemon.idleExitMs?",
        (
            "environment variable DRAGOMAN_LIMITS__MAX_RUNNING: limits.maxRunning: expected a whole number "
            "from 1 to 65536, got 'many'."
        ),
    ]
    config.write_text("")
    del home.env["DRAGOMAN_LIMITS__MAX_RUNNING"]
    home.locate()


def test_a_newer_schema_is_not_touched(home: Any) -> None:
    home.locate()
    home.kill(15)
    with sqlite3.connect(home.paths.database) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute("PRAGMA user_version = 9999")
    database.close()
    assert version >= 1
    text = refused(home)
    assert text.startswith(f"{home.paths.database}: its schema has number 9999, this version of Dragoman")
    assert "NewerSchemaError" in home.log()[-2]["exception"]
    assert not os.path.exists(home.paths.socket)


def test_another_program_s_database_is_not_touched(home: Any) -> None:
    Path(home.paths.state_dir).mkdir(parents=True, mode=0o700)
    with sqlite3.connect(home.paths.database) as database:
        database.execute("CREATE TABLE theirs (precious TEXT)")
    database.close()
    before = Path(home.paths.database).read_bytes()
    assert refused(home).startswith(f"{home.paths.database}: it is a database of another program")
    assert Path(home.paths.database).read_bytes() == before


def test_a_foreign_file_in_the_socket_s_place(home: Any) -> None:
    home.locate()
    home.kill(15)
    Path(home.paths.socket).write_text("precious")
    assert "is not a socket" in refused(home)
    assert Path(home.paths.socket).read_text() == "precious"


def test_a_second_daemon_is_refused_at_once(home: Any) -> None:
    place = home.locate()
    second, word = home.foreground()
    said, complaints = second.communicate(timeout=60)
    text = f"A daemon is running already (process {place['pid']}, socket {place['socket']})."
    assert word == {"error": text}
    assert (said, complaints, second.returncode) == ("", f"dragomand: {text}\n", 1)
    connect(home.paths).close()
    assert home.locate() == place


def test_a_wrong_command_line(home: Any) -> None:
    process, _ = home.foreground("--set", "log.level=loud")
    assert (
        "--set log.level: log.level: expected one of debug, info, warning, error"
        in (process.communicate(timeout=60)[1])
    )
    assert process.returncode == 1


def test_a_running_daemon_whose_socket_was_removed_is_called_back(home: Any) -> None:
    """A second one beside it would be a second owner of the limits."""
    place = home.locate()
    os.unlink(home.paths.socket)
    assert home.locate() == place
    shutil.rmtree(home.paths.runtime_dir)
    assert home.locate() == place
    assert json.loads(home.dragoman("rpc", "daemon/status").stdout)["socket"] == place["socket"]
