"""A model hub on loopback that takes what huggingface_hub uploads."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What the server was asked for."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.committed: dict[str, bytes] = {}
        self.status = 200
        """Status of every answer."""
        self.address = ""


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a hub for the time of the block."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not body and self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            self._answer(self._post(body))

        def do_GET(self) -> None:
            self._answer({})

        def _post(self, body: bytes) -> dict[str, Any]:
            if hub.status != 200:
                return {"error": "no"}
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                private = asked.get("private") or asked.get("visibility") == "private"  # by the library's version
                hub.created.append({"name": asked["name"], "organization": asked["organization"], "private": private})
                return {"url": f"{hub.address}/me/night"}
            if "/preupload/" in self.path:
                files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
                return {"files": [{**one, "shouldIgnore": False} for one in files]}
            if "/commit/" in self.path:
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        hub.committed[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                return {"commitUrl": f"{hub.address}/me/night/commit/{'a' * 40}", "commitOid": "a" * 40}
            return {"errors": [], "warnings": []}

        def _answer(self, value: dict[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.send_response(hub.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
