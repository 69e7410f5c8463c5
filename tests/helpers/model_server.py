"""A local OpenAI-compatible server whose replies, good and faulty, are scripted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKENS_IN, TOKENS_OUT = 1000, 200
"""Billed for every whole reply."""

Act = dict[str, Any]
"""What the server does with a request: {"text": ...}, {"status": ...}, {"cut": True}, {"sleep": seconds} and so on."""


class ModelServer:
    """Answers each request with what `script(number of the request, its JSON)` says."""

    def __init__(self, script: Callable[[int, dict[str, Any]], Act], models: tuple[str, ...] = ()) -> None:
        self.requests: list[dict[str, Any]] = []
        self.billed = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                data = json.dumps({"data": [{"id": name} for name in models]} if models else {}).encode()
                self.send_response(200 if models else 404)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.requests.append({**body, "authorization": self.headers.get("Authorization", "")})
                    number = len(server.requests) - 1
                act = script(number, body)
                time.sleep(act.get("sleep", 0))
                try:
                    self._answer(act, body)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def _answer(self, act: Act, body: dict[str, Any]) -> None:
                status = act.get("status", 200)
                message = {"role": "assistant", "content": act.get("text", "")}
                choice = {"index": 0, "message": message, "finish_reason": act.get("finish", "stop")}
                usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT}
                usage["total_tokens"] = TOKENS_IN + TOKENS_OUT
                usage = act.get("usage", usage)
                answer = {
                    "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
                    "choices": [choice], "usage": usage,
                }  # fmt: skip
                if status != 200:
                    answer = {
                        "error": {
                            "message": act.get("message", f"status {status}"),
                            "type": "x",
                            "code": act.get("code"),
                        }
                    }
                data = act["raw"].encode() if "raw" in act else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in act.get("headers", {}).items():
                    self.send_header(name, value)
                self.end_headers()
                if act.get("cut"):
                    self.wfile.write(data[: len(data) // 2])
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.close()
                    return
                self.wfile.write(data[:-1])
                # Before the client can have the whole of it, and so look at the bill.
                if status == 200 and not act.get("sleep") and "raw" not in act:
                    with lock:
                        server.billed += 1
                self.wfile.write(data[-1:])

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def reply(
    old: str, new: str, *, category: str = "optimizer", delta: str = "-0.01", words: str = "A better value."
) -> str:
    """A well-formed reply."""
    head = f"HYPOTHESIS: {words}\nCATEGORY: {category}\nPREDICTED_DELTA: {delta}\nRISK: low\n\n"
    return f"{head}<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"
