"""Clients that connect to the dashboard and do not send a whole request."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run
from served import served

from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.report.web import connections
from autoresearch.core.run.loop import Limits, Loop


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = make_workspace(tmp_path_factory.mktemp("half") / "w")
    with open_run(folder, "first") as run:
        Loop(run, Widths(9), Greedy(), Scripted(), limits=Limits(1)).go()
    return folder


def ask(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def closed(client, seconds=20):
    """Whether the server closes the connection within some seconds."""
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize("said", [b"", b"GET /api/ru", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: "])
def test_half_a_request_is_waited_for_only_so_long(workspace, monkeypatch, said):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    with served(workspace) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(said)
        assert closed(client)


def test_a_byte_now_and_then_buys_no_time(workspace, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 1.0)
    with served(workspace) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        end = time.monotonic() + 30
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                client.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() < end


@pytest.mark.parametrize("more", [b"GET /api/ru", b"x"])
def test_half_a_second_request_is_waited_for_only_so_long_too(workspace, monkeypatch, more):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.5)
    length = b"Content-Length: 100000\r\n" if more == b"x" else b""
    with served(workspace) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\n" + length + b"\r\n")
        client.settimeout(20)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(OSError):
            client.sendall(more)
        assert closed(client)


def test_many_half_open_connections_leave_room_for_a_whole_request(workspace):
    with served(workspace) as port, contextlib.ExitStack() as stack:
        clients = []
        for _ in range(300):  # more than the server serves at once
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            with contextlib.suppress(OSError):
                client.sendall(b"GET /api/runs HT")
            clients.append(client)
        assert ask(port, "/api/runs") == 200
        assert closed(clients[0]), "the one that has waited longest has made room"


def test_a_page_that_follows_a_run_is_not_cut_off(workspace, monkeypatch):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    with served(workspace) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/api/runs/first/events")
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        time.sleep(1)
        monkeypatch.setattr("autoresearch.core.report.web.server.KEEP_ALIVE_SECONDS", 0.0)
        assert answer.readline() == b"\n"
        assert answer.readline() == b": alive\n"
        connection.close()


@pytest.mark.parametrize(
    "number", ["1" + "0" * 23, "-1", "9" * 5000, "%D9%A1", "%C2%B2", "1.0", "+1", "0x1", "1%20", "1%0A", "99", "1e3"]
)
def test_what_is_no_experiment_is_not_found(workspace, number):
    with served(workspace) as port:
        assert ask(port, f"/api/runs/first/experiment/{number}") == 404
        assert ask(port, "/api/runs/first/experiment/1") == 200
