"""`ar` in processes of its own that import nothing: each is forked from a process that has imported everything.

A language model's library alone takes six seconds of a processor to import, so that a test with three command lines
would do little else.
"""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

IMPORTED = (
    "autoresearch.core.cli.main",
    "autoresearch.core.cli.run.command",
    "autoresearch.core.cli.submit",
    "autoresearch.core.run.loop",
    "autoresearch.agent.llm.researcher",
    "autoresearch.backends.null.runtime",
    "litellm",
    "sqlite_utils",  # and pandas, which it imports where it is there
)
START_SECONDS = 120
"""For the imports, on a busy machine."""


class Ar:
    """A running `ar`, with what `subprocess.Popen` has: its streams are read as text."""

    def __init__(self, arguments: list[str], environment: dict[str, str], cwd: Path | None = None) -> None:
        self.returncode: int | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(_server())
        ends = [os.pipe(), os.pipe()]
        asked = {"arguments": arguments, "environment": environment, "cwd": str(cwd or Path.cwd())}
        text = json.dumps(asked).encode()
        socket.send_fds(self._socket, [len(text).to_bytes(4, "big")], [writer for _, writer in ends])
        self._socket.sendall(text)
        for _, writer in ends:
            os.close(writer)
        self.stdout, self.stderr = (os.fdopen(reader, encoding="utf-8") for reader, _ in ends)
        self._answers = self._socket.makefile()
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._socket], [], [], 0)[0]:
            self._finish()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._socket], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("ar", timeout or 0.0)
            self._finish()
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return what it wrote to stdout and stderr, once it has ended. Raises `subprocess.TimeoutExpired`."""
        written: dict[IO[str], str] = {}
        readers = [
            threading.Thread(target=lambda s=s: written.update({s: s.read()})) for s in (self.stdout, self.stderr)
        ]
        for reader in readers:
            reader.start()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        for reader in readers:
            reader.join()
        return written[self.stdout], written[self.stderr]

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _finish(self) -> None:
        self.returncode = int(self._answers.readline())
        self._socket.close()


def run_ar(
    arguments: list[str], environment: dict[str, str], timeout: float = 120.0, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `ar` to its end."""
    process = Ar(arguments, environment, cwd)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(["ar", *arguments], process.wait(), out, err)


@functools.cache
def _server() -> str:
    """Start the process that forks, once for each worker of the tests; returns where it listens."""
    path = tempfile.mkdtemp(prefix="ar-warm-") + "/socket"
    ready, far = os.pipe()
    # It ends with this process: the pipe to its stdin closes.
    command = [sys.executable, __file__, path, str(far)]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[far], start_new_session=True, env=environment)
    os.close(far)
    assert select.select([ready], [], [], START_SECONDS)[0] and os.read(ready, 1), "the warm process did not start"
    os.close(ready)
    return path


def _serve(path: str, ready: int) -> None:
    """Import everything, then fork for each connection; answer with the process and, at its end, its exit code."""
    import gc
    import importlib

    from disk_waits import without_disk_waits

    without_disk_waits()
    for name in IMPORTED:
        importlib.import_module(name)
    _wait_less_for_models()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    os.write(ready, b"r")
    os.close(ready)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    while True:
        for readable in select.select([0, listener, wake], [], [])[0]:
            if readable == 0:
                shutil.rmtree(Path(path).parent, ignore_errors=True)
                return
            if readable is listener:
                connection, _ = listener.accept()
                pid = _fork(connection, [listener, *running.values()], (wake, woken))
                running[pid] = connection
                connection.sendall(f"{pid}\n".encode())
            else:
                os.read(wake, 4096)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            connection = running.pop(ended[0])
            connection.sendall(f"{os.waitstatus_to_exitcode(ended[1])}\n".encode())
            connection.close()


def _wait_less_for_models() -> None:
    """Make a model that failed wait a tenth of the time before it is asked again."""
    from autoresearch.agent.llm.models import Models

    defaults = Models.__init__.__kwdefaults__
    defaults["backoff_seconds"] /= 10


def _fork(connection: socket.socket, others: list[socket.socket], pipe: tuple[int, int]) -> int:
    """Fork a child that is `ar` as the request asks."""
    first, descriptors, _, _ = socket.recv_fds(connection, 4, 2)
    text = b""
    while len(text) < int.from_bytes(first, "big"):
        text += connection.recv(1 << 20)
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in (connection, *others):
            one.close()
        for end in pipe:
            os.close(end)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, place in zip(descriptors, (1, 2), strict=True):
            os.dup2(descriptor, place)
            os.close(descriptor)
        asked = json.loads(text)
        os.setsid()
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = ["ar", *asked["arguments"]]
        code = sys.modules["autoresearch.core.cli.main"].run(asked["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
