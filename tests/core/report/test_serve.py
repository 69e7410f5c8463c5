"""The dashboard's server over real HTTP."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.loop import Limits, Loop
from autoresearch.core.report.serve import Dashboard, is_loopback

sys.path.insert(0, str(Path(__file__).parents[1]))

from loop_fixtures import Scripted, Widths, make_workspace, open_run


@pytest.fixture
def workspace(tmp_path):
    folder = make_workspace(tmp_path / "w")
    go(folder, 2)
    return folder


def go(workspace, count):
    with open_run(workspace, "first") as run:
        Loop(run, Widths(9, 12, 8), Greedy(), Scripted(), limits=Limits(count)).go()


@contextmanager
def served(workspace, token=None):
    server = Dashboard(("127.0.0.1", 0), workspace / "runs/first", {}, token)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(port, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def test_data_are_what_the_ledger_says(workspace):
    with served(workspace) as port:
        state = json.loads(ask(port, "/api/state")[2])
        assert (state["state"], state["best"], state["next"]) == ("finished", 1, 3)
        assert [row["n"] for row in json.loads(ask(port, "/api/experiments")[2])] == [0, 1, 2]
        assert [row["n"] for row in json.loads(ask(port, "/api/experiments?after=1")[2])] == [2]
        one = json.loads(ask(port, "/api/experiment/2")[2])
        assert (one["predicted_delta"], one["status"], len(one["runs"])) == (-0.01, "discard", 1)
        assert "+WIDTH = 12  # channels" in one["diff"]


def test_the_stream_tells_what_has_changed(workspace):
    with served(workspace) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/api/events")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert json.loads(answer.readline().removeprefix(b"data: "))["next"] == 3
        go(workspace, 3)
        for line in answer:
            if line.startswith(b"data: ") and json.loads(line.removeprefix(b"data: "))["best"] == 3:
                break
        connection.close()


@pytest.mark.parametrize(
    "path", ["/nothing", "/../ledger.sqlite", "/api/experiment/99", "/api/experiment/x", "/api/experiments?after=x"]
)
def test_what_is_not_there_is_not_found(workspace, path):
    with served(workspace) as port:
        assert ask(port, path)[0] == 404


def test_it_only_reads(workspace):
    with served(workspace) as port:
        for method in ("POST", "PUT", "DELETE"):
            assert ask(port, "/api/state", method)[0] == 501


def test_every_answer_forbids_what_the_page_does_not_need(workspace):
    with served(workspace) as port:
        for path in ("/", "/app.js", "/api/state", "/nothing"):
            headers = ask(port, path)[1]
            assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_name_that_points_here_from_elsewhere_is_refused(workspace):
    with served(workspace) as port:
        assert ask(port, "/api/state", Host="evil.example")[0] == 403
        assert ask(port, "/api/state", Host=f"localhost:{port}")[0] == 200
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")


def test_beyond_loopback_a_token_is_needed(workspace):
    with served(workspace, token="secret") as port:
        assert ask(port, "/api/state")[0] == 403
        assert ask(port, "/?token=wrong")[0] == 403
        status, headers, _ = ask(port, "/?token=secret")
        assert (status, headers["Location"]) == (303, "/")
        assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
        assert ask(port, "/api/state", Cookie="a=b; ar_token=secret")[0] == 200
