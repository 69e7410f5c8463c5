"""Requests that no browser makes, and folders whose run has another name."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import sqlite3
import time
from pathlib import Path

from loop_fixtures import finished_run
from served import served

from autoresearch.core.report.web.api import overview
from autoresearch.core.report.web.queries import RunQueries
from autoresearch.core.store.reader import LEDGER_NAME


def get(port, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_an_origin_that_is_no_address_is_another_page(tmp_path):
    folder = finished_run(tmp_path)
    with served(tmp_path, actions="secret", tag=folder.name) as port:
        headers = {"Origin": "http://[", "Cookie": f"ar_token_{port}=secret"}
        assert get(port, "/api/start", headers) == (200, {"tag": "t", "actions": False})


def test_a_request_that_breaks_off_leaves_no_traceback(tmp_path, caplog):
    folder = finished_run(tmp_path)
    with served(tmp_path, actions="secret", tag=folder.name) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = f"POST /api/runs/t/actions HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: ar_token_{port}=secret\r\n"
            client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{{".encode())
            time.sleep(0.2)
        time.sleep(0.2)
        assert get(port, "/api/start")[0] == 200
    assert "ClientDisconnect" not in caplog.text


def test_the_head_of_a_stream_is_answered_and_nothing_more(tmp_path):
    finished_run(tmp_path)
    with served(tmp_path) as port:
        for tag, answer in (("t", b"HTTP/1.1 200"), ("none", b"HTTP/1.1 404")):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                head = f"HEAD /api/runs/{tag}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
                client.sendall(head.encode())
                assert client.makefile("rb").read().startswith(answer)  # raises when the server does not close


def changed(folder, sql):
    with contextlib.closing(sqlite3.connect(folder / LEDGER_NAME)) as ledger, ledger:
        ledger.execute(sql)


def test_an_experiment_names_its_neighbours_across_the_gap_of_a_withdrawn_number(tmp_path):
    folder = finished_run(tmp_path)
    changed(folder, "DELETE FROM experiments WHERE number = 2")
    with served(tmp_path) as port:
        found = [get(port, f"/api/runs/t/experiment/{number}")[1] for number in (0, 1, 3)]
    assert [(one["previous"], one["next"]) for one in found] == [(None, 1), (0, 3), (1, None)]


def test_a_noise_that_is_no_number_is_none(tmp_path):
    folder = finished_run(tmp_path)
    changed(folder, """UPDATE experiments SET judged = '{"sigma": "loud"}' WHERE number = 2""")
    with served(tmp_path) as port:
        assert [one["sigma"] for one in get(port, "/api/runs")[1]] == [None]


def test_a_run_that_is_removed_while_runs_are_listed_is_left_out(tmp_path, monkeypatch):
    gone = finished_run(tmp_path).with_name("gone") / LEDGER_NAME
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*glob(self, pattern), gone])
    with served(tmp_path) as port:
        assert [one["tag"] for one in get(port, "/api/runs")[1]] == ["t"]


def test_a_lineage_is_the_overviews_without_the_rest(tmp_path):
    finished_run(tmp_path)
    with served(tmp_path) as port:
        lineage = get(port, "/api/runs/t/lineage")[1]
        assert lineage == get(port, "/api/runs/t/overview")[1]["lineage"]
    assert len(lineage) == 3


def test_an_overview_asks_as_little_of_a_long_run_as_of_a_short_one(tmp_path):
    folder = finished_run(tmp_path)

    def asked():
        statements = []
        with RunQueries(folder) as reader:
            reader._connection.set_trace_callback(statements.append)
            overview(reader, lambda decided: None)
        return len(statements)

    changed(folder, "UPDATE runs SET incumbent = 0")
    short = asked()
    changed(folder, "UPDATE runs SET incumbent = 3")  # found behind three others; the edit needs two texts more
    assert asked() <= short + 2


def test_a_story_reads_no_more_than_it_tells(tmp_path, monkeypatch):
    folder = finished_run(tmp_path)
    monkeypatch.setattr(RunQueries, "experiments", None)  # every row, which takes seconds in a long run
    with RunQueries(folder) as reader:
        assert [row.number for row in reader.story(3, 1)] == [2]
        assert [row.number for row in reader.story(9, 9)] == [3, 2, 1]


def test_a_copied_run_is_named_by_its_folder(tmp_path):
    folder = finished_run(tmp_path)
    shutil.copytree(folder, folder.with_name("copy"))
    with served(tmp_path) as port:
        assert get(port, "/api/runs/copy/state")[1]["tag"] == "copy"
        assert {one["tag"] for one in get(port, "/api/runs")[1]} == {"t", "copy"}
