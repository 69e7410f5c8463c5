"""The dashboard's server over real HTTP."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import time

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run
from served import served

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.report.web.auth import is_loopback
from autoresearch.core.report.web.server import LOOK_SECONDS, Polling
from autoresearch.core.run.loop import Limits, Loop

RUN = "/api/runs/first"


@pytest.fixture
def workspace(tmp_path):
    folder = make_workspace(tmp_path / "w")
    go(folder, 2)
    return folder


def go(workspace, count, tag="first"):
    with open_run(workspace, tag) as run:
        Loop(run, Widths(9, 12, 8), Greedy(), Scripted(), limits=Limits(count)).go()


def ask(port, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def data(port, path):
    return json.loads(ask(port, path)[2])


def test_data_are_what_the_ledger_says(workspace):
    with served(workspace) as port:
        state = data(port, f"{RUN}/state")
        assert (state["state"], state["best_experiment"], state["decided"]) == ("finished", 1, 3)
        rows = data(port, f"{RUN}/experiments")
        assert [row["experiment"] for row in rows] == [0, 1, 2]
        assert [row["experiment"] for row in data(port, f"{RUN}/experiments?since={rows[1]['decided']}")] == [1, 2]
        one = data(port, f"{RUN}/experiment/2")
        assert (one["predicted_delta"], one["status"], len(one["trials"])) == (-0.01, "discard", 1)
        added = ["".join(text for _, text in parts) for mark, _, parts in one["diff"] if mark == "+"]
        assert added == ["WIDTH = 12  # channels"]
        assert one["cost"] == {"calls": 1, "tokens_in": 10, "tokens_out": 2, "usd": 0.5, "models": None}


def test_an_overview_holds_lineage_predictions_and_quotas(workspace):
    with served(workspace, quotas=lambda decided: {"seen": len(decided)}) as port:
        found = data(port, f"{RUN}/overview")
    assert [(one["n"], one["now"]) for one in found["lineage"]] == [(0, True), (1, True)]
    assert [one[0] for one in found["predictions"]] == [1, 2]
    assert (found["scores"][0]["count"], found["scores"][0]["right_sign"]) == (2, 0.5)
    assert found["quotas"] == {"seen": 3}


def test_a_run_that_was_deleted_is_gone_and_one_of_its_name_is_another(workspace):
    go(workspace, 1, "second")
    with served(workspace) as port:
        before = data(port, f"{RUN}/state")
        shutil.rmtree(workspace / "runs/first")
        # Looked at again where the folder is looked for first, and where a page follows what it had.
        assert ask(port, f"{RUN}/state")[0] == 404
        (workspace / "runs/second").rename(workspace / "runs/first")
        time.sleep(LOOK_SECONDS)
        now = data(port, f"{RUN}/state")
    assert (before["tag"], before["decided"]) == ("first", 3)
    assert (now["tag"], now["decided"]) == ("first", 2)  # named by the folder, whatever name its run was started with


def test_a_page_that_follows_a_run_is_told_that_it_is_gone(workspace):
    polling = Polling()
    try:
        assert "error" not in json.loads(polling._look(workspace / "runs/first"))
        shutil.rmtree(workspace / "runs/first")
        time.sleep(LOOK_SECONDS)
        assert "the run first is gone" in json.loads(polling._look(workspace / "runs/first"))["error"]
    finally:
        polling.close()


def test_runs_lie_side_by_side(workspace):
    go(workspace, 1, "second")
    with served(workspace) as port:
        runs = data(port, "/api/runs")
        assert [run["tag"] for run in runs] == ["first", "second"]
        assert [step[:2] for step in runs[0]["steps"]] == [[0, 1.0], [1, 0.9]]
        assert data(port, "/api/runs/second/state")["decided"] == 2


def test_the_stream_tells_what_has_changed(workspace):
    with served(workspace) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", f"{RUN}/events")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert json.loads(answer.readline().removeprefix(b"data: "))["decided"] == 3
        go(workspace, 3)
        for line in answer:
            if line.startswith(b"data: ") and json.loads(line.removeprefix(b"data: "))["best_experiment"] == 3:
                break
        connection.close()


def test_a_server_that_is_stopped_ends_its_streams_in_good_order(workspace):
    with served(workspace) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", f"{RUN}/events")
        answer = connection.getresponse()
        answer.readline()
    answer.read()  # raises `IncompleteRead` when the stream was cut off
    connection.close()


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/nothing",
            "/../ledger.sqlite",
            "/assets/..%2fserver.py",
            "/assets/index.html",
            "/assets/%00.js",
            "/assets/nothing.js",
            "/api/runs/none/state",
        ),
        *("/api/runs/..%2f..%2fx/state", f"{RUN}/experiment/99", f"{RUN}/experiment/x", f"{RUN}/experiments?since=x"),
    ],
)
def test_what_is_not_there_is_not_found(workspace, path):
    with served(workspace) as port:
        assert ask(port, path)[0] == 404


def test_a_damaged_ledger_is_said_and_the_other_runs_go_on(workspace):
    go(workspace, 1, "second")
    (workspace / "runs/first/ledger.sqlite").write_bytes(b"not a database" * 100)
    with served(workspace) as port:
        assert "cannot be used as a ledger" in data(port, f"{RUN}/state")["error"]
        assert ask(port, f"{RUN}/experiments")[0] == 404
        assert [run["tag"] for run in data(port, "/api/runs")] == ["second"]


def test_it_only_reads(workspace):
    with served(workspace) as port:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert ask(port, f"{RUN}/state", method)[0] == 405


def act(port, cookie="secret", path=f"{RUN}/actions", kind="application/json", body=None, **more):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": kind, "Cookie": f"ar_token_{port}={cookie}", **more.pop("headers", {})}
    connection.request("POST", path, json.dumps(more) if body is None else body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_whoever_has_the_token_notes_and_pins(workspace):
    with served(workspace, actions="secret", tag="first") as port:
        assert ask(port, "/?token=secret")[1]["Set-Cookie"].startswith(f"ar_token_{port}=secret; HttpOnly")
        assert data(port, "/api/start") == {"tag": "first", "actions": False}
        assert json.loads(ask(port, "/api/start", Cookie=f"ar_token_{port}=secret")[2])["actions"]
        assert act(port, action="note", experiment=1, text="try it wider")[0] == 200
        assert act(port, action="pin", experiment=1)[0] == 200
        one = data(port, f"{RUN}/experiment/1")
        assert (one["notes"], one["pinned"]) == (["try it wider"], True)
        act(port, action="clear", experiment=1)
        assert json.loads(act(port, action="unpin", experiment=1)[1]) == {"notes": [], "pinned": False}


def test_nobody_acts_without_the_token_or_from_another_page(workspace):
    with served(workspace, actions="secret") as port:
        wish = {"action": "pin", "experiment": 1}
        assert act(port, cookie="wrong", **wish)[0] == 403
        assert act(port, headers={"Origin": "http://evil.example"}, **wish)[0] == 403
        assert act(port, headers={"Origin": "http://127.0.0.1:1"}, **wish)[0] == 403
        assert act(port, kind="text/plain", **wish)[0] == 415
        assert act(port, path="/api/runs/none/actions", **wish)[0] == 404
        assert act(port, body=b"x" * 20_000)[0] == 413
        for body in (b"", b"[" * 9000, b"[]", b'{"action": ["pin"]}', b'{"action": "rm"}', b'{"action": "pin"}'):
            assert act(port, body=body)[0] == 400
        for more in (
            {"experiment": True},
            {"experiment": 99},
            {"experiment": 10**30, "text": "x"},
            {"experiment": 1, "text": "x" * 1001},
            {"experiment": 1},
        ):
            assert act(port, action="note", **more)[0] == 400
        assert act(port, action="stop")[0] == 400  # no loop runs
        assert data(port, f"{RUN}/experiment/1")["pinned"] is False
    for server in ({}, {"token": "secret"}):
        with served(workspace, **server) as port:
            assert act(port, **wish)[0] == 403


def test_the_story_comes_in_pieces_the_latest_first(workspace, monkeypatch):
    monkeypatch.setattr("autoresearch.core.report.web.api.MAX_STORY", 1)
    with served(workspace) as port:
        (last,) = data(port, f"{RUN}/story")
        assert (last["n"], last["status"], last["predicted"]) == (2, "discard", -0.01)
        assert [row["n"] for row in data(port, f"{RUN}/story?before=2")] == [1]
        assert data(port, f"{RUN}/story?before=1") == []
        assert data(port, f"{RUN}/findings") == []


def test_every_answer_forbids_what_the_page_does_not_need(workspace):
    with served(workspace) as port:
        for path in ("/", "/assets/app.js", f"{RUN}/state", "/nothing"):
            headers = ask(port, path)[1]
            assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_name_that_points_here_from_elsewhere_is_refused(workspace):
    with served(workspace) as port:
        assert ask(port, f"{RUN}/state", Host="evil.example")[0] == 400
        assert ask(port, f"{RUN}/state", Host="[")[0] == 400
        assert ask(port, f"{RUN}/state", Host=f"localhost:{port}")[0] == 200
        assert ask(port, f"{RUN}/state", Host=f"[::1]:{port}")[0] == 200
        assert "Content-Security-Policy" in ask(port, "/", Host="evil.example")[1]
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")


def test_beyond_loopback_a_token_is_needed(workspace):
    with served(workspace, token="secret") as port:
        for path in (f"{RUN}/state", "/assets/app.js", "/?token=wrong"):
            assert ask(port, path)[0] == 403
        status, headers, _ = ask(port, "/?token=secret")
        assert (status, headers["Location"]) == (303, "/")
        assert "HttpOnly; Path=/; SameSite=strict" in headers["Set-Cookie"]
        for path in ("//evil.example/", "///evil.example", "/%2Fevil.example", "/%5Cevil.example"):
            place = ask(port, f"{path}?token=secret")[1]["Location"]
            assert place.startswith("/") and place[1] not in "/\\", "the token's redirect leads to another server"
        assert ask(port, f"{RUN}/state", Cookie=f"a=b; ar_token_{port}=secret")[0] == 200


def test_nonsense_on_the_wire_gets_an_answer_and_leaves_the_server_up(workspace):
    with served(workspace) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
            wire.sendall(b"\x00\xff nonsense\r\n\r\n")
            assert wire.recv(100).startswith(b"HTTP/1.1 400")
        assert ask(port, f"{RUN}/state")[0] == 200
