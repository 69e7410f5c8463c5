"""After a SIGKILL every view of a run says the same of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run
from served import served
from warm_ar import Ar

from autoresearch.core.cli.main import run as ar
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.report.document.gather import gather
from autoresearch.core.report.document.page import html_page, markdown
from autoresearch.core.run.loop import Limits, Loop
from autoresearch.core.store.liveness import STALE_SECONDS, is_alive, shown_state
from autoresearch.core.store.reader import LedgerReader
from autoresearch.core.store.rows import RunRow

WRITER = """
import sys, time
from pathlib import Path
from autoresearch.core.store.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.set_state("running")
ledger.heartbeat()
print("writing", flush=True)
time.sleep(600)
"""


@pytest.fixture
def workspace(tmp_path):
    folder = make_workspace(tmp_path / "w")
    with open_run(folder, "first") as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
    return folder


def views(workspace, capsys):
    """The state of the run as each view has it."""
    found, at = {}, ["--workspace", str(workspace)]
    assert ar([*at, "status", "--tag", "first"]) == 0
    found["status"] = capsys.readouterr().out.splitlines()[1].split("\t")[1]
    assert ar([*at, "status", "--tag", "first", "--json"]) == 0
    found["status --json"] = json.loads(capsys.readouterr().out)["state"]
    with served(workspace) as port:
        base = f"http://127.0.0.1:{port}/api/runs"
        found["dashboard"] = json.load(urllib.request.urlopen(f"{base}/first/state"))["state"]
        found["all runs"] = json.load(urllib.request.urlopen(base))[0]["state"]
    with LedgerReader(workspace / "runs/first") as reader:
        report = gather(reader)
    found["report"] = next(word for word in ("died", "running") if f"; {word}" in html_page(report, None))
    found["report in Markdown"] = next(word for word in ("died", "running") if f"State: {word}" in markdown(report))
    watching = Ar([*at, "watch", "--tag", "first"], dict(os.environ))
    found["watch"] = watching.stdout.readline().split(": ")[1].split(" ·")[0]
    if found["watch"] == "running":
        watching.kill()
    watching.communicate(timeout=60)
    return found


def test_after_a_sigkill_every_view_says_that_the_run_died(workspace, capsys):
    command = [sys.executable, "-c", WRITER, str(workspace / "runs/first")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        try:
            assert set(views(workspace, capsys).values()) == {"running"}
        except BaseException:
            writer.kill()
            raise
        writer.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)  # dead, and not waited for: a zombie
        assert set(views(workspace, capsys).values()) == {"died"}
        writer.wait()
        assert set(views(workspace, capsys).values()) == {"died"}


def row(**changes):
    here = RunRow("first", "running", None, 0.0, {}, "", None, os.getpid(), socket.gethostname(), time.time())
    return replace(here, **changes)


def test_on_another_machine_the_heartbeat_decides():
    assert is_alive(row(host="elsewhere"))
    assert not is_alive(row(host="elsewhere"), time.time() + STALE_SECONDS + 1)
    assert not is_alive(row(host="elsewhere", heartbeat=None))


def test_a_process_that_got_the_writers_number_is_not_the_writer():
    assert is_alive(row())
    assert not is_alive(row(heartbeat=time.time() - 10 * 24 * 3600))


def test_a_run_that_ended_in_good_order_has_not_died():
    assert shown_state(row(state="finished", pid=None)) == "finished"
    assert shown_state(row()) == "running"
    assert shown_state(row(pid=2**22 + 1)) == "died"
