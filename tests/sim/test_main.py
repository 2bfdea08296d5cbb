"""`python -m dragoman_sim`."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from dragoman_sim.__main__ import main

COMMAND = [sys.executable, "-m", "dragoman_sim"]
DEADLINE_S = 20


def start(*arguments, stdin=subprocess.PIPE):
    return subprocess.Popen(
        [*COMMAND, *arguments], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def end(process):
    """Wait for its end; nothing may be left on its output."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (out, err) == (b"", b"")
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_line_when_ready_and_an_end_by_signal(tmp_path, message_body, number):
    script = tmp_path / "script.json"
    script.write_text('{"rules": [{"reply": "as scripted"}]}')
    process = start("--port", "0", "--script", str(script))
    said = json.loads(process.stdout.readline())
    assert said["pid"] == process.pid
    where = urlsplit(said["url"])
    assert where.hostname == "127.0.0.1"
    connection = http.client.HTTPConnection("127.0.0.1", where.port, timeout=DEADLINE_S)
    connection.request("POST", "/v1/messages", message_body("x"), {"x-api-key": "k"})
    assert json.loads(connection.getresponse().read())["content"][0]["text"] == "as scripted"
    process.send_signal(number)
    assert end(process) == 0
    connection.close()


def test_it_ends_with_its_stdin_if_asked_to():
    process = start("--until-stdin-closes")
    process.stdout.readline()
    process.stdin.write(b"ignored")
    process.stdin.flush()
    assert process.poll() is None
    assert end(process) == 0


def test_a_stdin_that_nobody_holds_is_closed():
    process = start("--until-stdin-closes", stdin=subprocess.DEVNULL)
    process.stdout.readline()
    assert end(process) == 0


def test_what_cannot_work_is_said(tmp_path, capsys):
    assert main(["--script", str(tmp_path / "none.json")]) == 1
    assert "none.json cannot be read" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text('[{"fault": "odd"}]')
    assert main(["--script", str(tmp_path / "bad.json")]) == 1
    assert "no fault 'odd'" in capsys.readouterr().err


def test_a_port_that_is_taken(capsys):
    process = start()
    port = urlsplit(json.loads(process.stdout.readline())["url"]).port
    assert main(["--port", str(port)]) == 1
    assert "dragoman sim:" in capsys.readouterr().err
    process.terminate()
    end(process)


def test_without_uvloop_too():
    program = (
        "import sys; sys.modules['uvloop'] = None; from dragoman_sim.__main__ import main; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "--until-stdin-closes"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert json.loads(process.stdout.readline())["url"].startswith("http://127.0.0.1:")
    assert end(process) == 0
