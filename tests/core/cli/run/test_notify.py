"""Messages about kept changes and the end, sent to servers of this test."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from loop_fixtures import Scripted, Widths, make_workspace, open_run

from autoresearch.core.cli.run.hooks import HookOptions, RunHooks
from autoresearch.core.cli.run.notify import address_of, check_targets
from autoresearch.core.errors import UsageError
from autoresearch.core.judge.greedy import Greedy
from autoresearch.core.run.loop import Limits, Loop

pytest.importorskip("apprise", reason="pip install apprise")


class Server(ThreadingHTTPServer):
    """Takes every POST, and remembers path and body."""

    def __init__(self, status: int = 200) -> None:
        self.got: list[tuple[str, str]] = []
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                got.append((self.path, body))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


def go(folder, targets, *widths):
    said = []
    with (
        open_run(make_workspace(folder / "w"), "first") as run,
        RunHooks(HookOptions(notify=targets), run, said.append) as hooks,
    ):
        Loop(run, Widths(*widths), Greedy(), Scripted(), limits=Limits(len(widths)), on_decided=hooks.decided).go()
    return said


def test_keeps_and_the_end_are_sent_and_discards_are_not(tmp_path):
    with Server() as server:
        assert go(tmp_path, (f"ntfy:http://{server.place}/night",), 9, 12, 8) == []
        told = [json.loads(body) for _, body in server.got]
    assert [one["title"].partition(":")[0] for one in told] == ["first", "first", "first has ended"]
    assert told[0]["title"].startswith("first: experiment 1 is kept: 0.9000 bits per byte (-0.1000)")
    assert "best: experiment 3, 0.8000 bits per byte, -0.2000 against the baseline" in told[2]["message"]


def test_a_server_that_fails_is_said_once_without_its_address(tmp_path):
    with Server(500) as server:
        said = go(tmp_path, (f"json://user:hush@{server.place}/secret",), 9, 8)
        assert len(server.got) >= 2
    assert said == ["--notify json: a message could not be sent; the run goes on"]


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("ntfy:my-topic", "ntfy://my-topic"), ("ntfy:https://push.example/t", "ntfys://push.example/t"),
        ("slack:https://hooks.slack.com/services/A/B/C", "https://hooks.slack.com/services/A/B/C"),
        ("email:me@example.org", "mailto://localhost:25/?mode=insecure&to=me@example.org&from=me@example.org"),
        ("tgram://token/chat", "tgram://token/chat"), ("ntfys://host/topic", "ntfys://host/topic"),
    ],
)  # fmt: skip
def test_short_names_stand_for_addresses(target, address):
    assert address_of(target) == address


@pytest.mark.parametrize("target", ["", "ntfy", "slack:secret-word", "email:nobody", "pigeon:home", "pigeon://home"])
def test_what_is_no_way_to_notify_is_refused_without_repeating_it(target):
    with pytest.raises(UsageError) as refused:
        check_targets([target])
    assert "secret-word" not in str(refused.value) and "home" not in str(refused.value)


def test_known_services_are_understood():
    slack = f"https://hooks.slack.com/services/T1A2B3C4D/B1A2B3C4D/{'madeup00' * 3}"
    discord = "https://discord.com/api/webhooks/4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js"
    check_targets([f"slack:{slack}", f"discord:{discord}", "ntfy:topic", "email:me@example.org"])
