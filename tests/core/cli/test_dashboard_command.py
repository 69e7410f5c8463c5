"""`ar dashboard` as a process."""

from __future__ import annotations

import dataclasses
import json
import signal
import socket
import subprocess
import sys
import urllib.request

from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.cli.dashboard import quotas
from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop


def test_it_prints_its_address_serves_and_ends_with_ctrl_c(tmp_path):
    workspace = make_workspace(tmp_path / "w")
    with open_run(workspace, "first"):
        pass
    command = [sys.executable, "-m", "autoresearch.core.cli.main", "--workspace", str(workspace), "dashboard"]
    # Whoever starts the tests in the background may have had SIGINT ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen([*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        url = json.loads(process.stdout.readline())["url"]
        root, _, fragment = url.partition("#")
        assert fragment == "/first"
        root, _, query = root.partition("?")
        assert query.startswith("token=")
        with urllib.request.urlopen(f"{root}api/runs/first/state", timeout=60) as answer:
            assert json.load(answer)["tag"] == "first"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_quotas_are_said_once_a_model_has_proposed(tmp_path):
    class Model(Widths):
        def propose(self, history):
            return dataclasses.replace(super().propose(history), parameters={"kind": "knob"})

    with open_run(make_workspace(tmp_path / "w"), "first") as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
        assert quotas(list(run.ledger.experiments())) is None
        Loop(run, Model(9, 12, 8), Greedy(), Scripted(), limits=Limits(3)).go()
        found = quotas(list(run.ledger.experiments()))
    assert found["kinds"] == ["knob", "knob"]
    assert found["least"] == "structural"
    assert "structural change is due" in found["why"]


def test_a_port_that_is_taken_is_one_line(tmp_path, capsys):
    workspace = make_workspace(tmp_path / "w")
    with open_run(workspace, "first"), socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert ar(["--workspace", str(workspace), "dashboard", "--port", str(port)]) == 2
    said = f"cannot listen on 127.0.0.1:{port}: Address already in use. Fix: choose another --port"
    assert said in capsys.readouterr().err
