"""The simulator in a process of its own, asked without asyncio."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from dragoman_sim import Cut, Gate, Reply, Rule, When, remote
from dragoman_sim.remote import RemoteError, in_process


def post(connection, body, key="k"):
    connection.request("POST", "/v1/messages", body, {"x-api-key": key})


def test_the_life_of_one(message_body):
    rules = [Rule(When(text="hold"), Reply(["one ", Gate("a/b"), "two"]))]
    with in_process(rules) as sim:
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(sim.url).port, timeout=20)
        post(connection, message_body("hold it"))
        sim.wait_arrived("a/b")
        assert sim.wait_for(text="hold")["outcome"] == "answering"
        sim.gate("a/b", "open")
        assert json.loads(connection.getresponse().read())["content"][0]["text"] == "one two"
        assert sim.wait_for(1, outcome="answered")["number"] == 1
        sim.use([Rule(reply="other")])
        post(connection, message_body("hold it"))
        assert json.loads(connection.getresponse().read())["content"][0]["text"] == "other"
        connection.close()
        assert [request["status"] for request in sim.requests()] == [200, 200]
        sim.reset()
        assert sim.requests() == []
        with pytest.raises(RemoteError, match="no fault"):
            sim.use([Rule(fault="odd")])
        with pytest.raises(RemoteError, match="Expected a request"):
            sim.wait_for(1, deadline_s=0.01)
        pid = sim.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_reset_is_one_on_its_own_event_loop_too(message_body):
    with in_process([Rule(fault=Cut("before_headers", reset=True))]) as sim:
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(sim.url).port, timeout=20)
        post(connection, message_body("x"))
        with pytest.raises(ConnectionResetError, match="reset by peer"):
            connection.getresponse()
        connection.close()
        assert sim.wait_for(1, outcome="ended")["outcome"] == "cut"


def test_a_script_that_cannot_work_says_so():
    with (
        pytest.raises(RemoteError, match="dragoman sim: There is no fault 'odd'"),
        in_process([Rule(fault="odd")]),
    ):
        pass


def test_one_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(remote, "_STOP_S", 0.01)
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdin=subprocess.PIPE)
    remote._stop(process)
    assert process.returncode == -9


def test_one_that_says_nothing_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(remote, "_START_S", 0.01)
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with pytest.raises(RemoteError, match="not ready"):
        remote._ready(process)
    remote._stop(process)


def test_the_example_scripts_work(message_body):
    folder = Path(__file__).parents[2] / "examples" / "sim-scripts"
    files = sorted(folder.glob("*.json"))
    assert files
    from dragoman_sim import Simulator, load_script

    for file in files:
        Simulator(load_script(file))
