"""Requests that no browser makes, and folders whose run has another name."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import time

from loop_fixtures import finished_run
from served import served


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


def test_a_copied_run_is_named_by_its_folder(tmp_path):
    folder = finished_run(tmp_path)
    shutil.copytree(folder, folder.with_name("copy"))
    with served(tmp_path) as port:
        assert get(port, "/api/runs/copy/state")[1]["tag"] == "copy"
        assert {one["tag"] for one in get(port, "/api/runs")[1]} == {"t", "copy"}
