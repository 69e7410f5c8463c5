"""The dashboard's server: it reads the runs of a workspace, and draws samples where it is given the means.

With a token it also takes a person's notes, pins and wishes for the loop.

Starlette and uvicorn, not the standard library's http.server, whose own page says that it is not for production: this
server may listen beyond loopback, and keeps a connection open for every page that follows a run. They bring two
packages of their own; everything they build on comes with litellm's client.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from autoresearch.core.config import RUN_FOLDERS
from autoresearch.core.errors import ArError, LedgerError
from autoresearch.core.events import json_value
from autoresearch.core.report.document.gather import yardsticks_of
from autoresearch.core.report.follow import RunFollower
from autoresearch.core.report.web import api, auth
from autoresearch.core.report.web.actions import act
from autoresearch.core.report.web.connections import TimedProtocol
from autoresearch.core.report.web.drawing import SampleDrawer
from autoresearch.core.report.web.queries import RunQueries
from autoresearch.core.store.reader import LEDGER_NAME
from autoresearch.core.store.wishes import WishFile

ASSETS = Path(__file__).with_name("assets")
ASSET_SUFFIXES = (".js", ".css", ".svg")
"""Endings of the files in ASSETS that are served under /assets/."""
EXPERIMENT = re.compile(r"[0-9]{1,9}")
"""The number of an experiment in an address. A longer one is none, and more than a ledger can be asked about."""
LOOK_SECONDS = 0.5
"""Seconds between two looks at a run, however many pages follow it."""
KEEP_ALIVE_SECONDS = 10.0
"""Seconds of silence after which a stream sends a comment, so that no proxy closes it."""
MAX_CONNECTIONS = 200
MOST_ACTION_BYTES = 2**14
"""Longest request for an action."""
MAX_RUNS = 100
"""Number of runs shown side by side, the latest ones."""


class Dashboard:
    """The server of the runs in a folder. `token` is None on a loopback address.

    `actions` is the token for what changes a run, None where nothing may; `tag` is the run that is shown first.
    """

    def __init__(
        self,
        address: tuple[str, int],
        runs: Path,
        *,
        token: str | None = None,
        quotas: api.Quotas,
        drawer: SampleDrawer | None = None,
        actions: str | None = None,
        tag: str | None = None,
    ) -> None:
        """Begin to listen. Without a `drawer` no page can ask for samples. Raises `OSError` without the address."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.create_server(address, family=family)
        self.port = int(self._socket.getsockname()[1])
        self.runs, self._quotas, self._polling, self._drawer = runs, quotas, Polling(), drawer
        self._actions, self._tag = actions, tag
        config = uvicorn.Config(
            Starlette(routes=self._routes(), middleware=auth.middleware(address[0], self.port, token, actions)),
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            http=TimedProtocol,
            loop="asyncio",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)

    def serve(self) -> None:
        """Serve until `stop`, or until a signal, which is then raised again."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._polling.close()
            self._socket.close()

    def stop(self) -> None:
        """End `serve` and the streams of pages that follow a run. Any thread may call it."""
        self._server.should_exit = True

    def _routes(self) -> list[BaseRoute]:
        """List every address there is. All but those that draw samples and act only read."""
        return [
            Route("/", lambda request: FileResponse(ASSETS / "index.html")),
            Mount("/assets", Assets(directory=ASSETS)),
            Route("/api/start", self._answer(self._start)),
            Route("/api/runs", self._answer(lambda request: self._all_runs())),
            Route("/api/runs/{tag}/state", self._state),
            Route("/api/runs/{tag}/events", self._events),
            Route("/api/runs/{tag}/experiments", self._answer(self._experiments)),
            Route("/api/runs/{tag}/experiment/{number}", self._answer(self._experiment)),
            Route("/api/runs/{tag}/overview", self._answer(self._overview)),
            Route("/api/runs/{tag}/lineage", self._answer(self._lineage)),
            *([] if self._drawer is None else [Route("/api/runs/{tag}/samples", self._samples, methods=["POST"])]),
            Route("/api/runs/{tag}/story", self._answer(self._story)),
            Route("/api/runs/{tag}/findings", self._answer(self._findings)),
            Route("/api/runs/{tag}/actions", self._act, methods=["POST"]),
        ]

    def _answer(self, find: Callable[[Request], Any]) -> Callable[[Request], Response]:
        """Make a handler, run in a thread, that answers with data or says what is wrong with the run."""

        def handle(request: Request) -> Response:
            try:
                return Response(encode(find(request)), media_type="application/json")
            except (ArError, OSError) as error:
                return PlainTextResponse(str(error), 404)

        return handle

    def _folder(self, request: Request) -> Path:
        """Find the run that is asked about. The tag is compared, never made part of a path."""
        tag = request.path_params["tag"]
        found = next((folder for folder in self._folders() if folder.name == tag), None)
        if found is None:
            raise HTTPException(404, "there is no such run\n")
        return found

    def _folders(self) -> list[Path]:
        """List the folders of the runs, the one that was written last at the end."""
        found = []
        for path in self.runs.glob(f"{RUN_FOLDERS}/{LEDGER_NAME}"):
            with suppress(OSError):  # removed since it was found
                found.append((path.stat().st_mtime, path.parent))
        return [folder for _, folder in sorted(found)]

    def _experiments(self, request: Request) -> list[dict[str, Any]]:
        try:
            since = float(request.query_params.get("since", "0"))
        except ValueError:
            raise HTTPException(404, "`since` is a time in seconds\n") from None
        with RunQueries(self._folder(request)) as reader:
            return api.experiments(reader, since)

    def _experiment(self, request: Request) -> dict[str, Any]:
        number = request.path_params["number"]
        if not EXPERIMENT.fullmatch(number):
            raise HTTPException(404, "there is no such experiment\n")
        with RunQueries(self._folder(request)) as reader:
            return api.experiment(reader, int(number))

    def _start(self, request: Request) -> dict[str, Any]:
        """Tell the page which run to show first, and whether it may act."""
        return {"tag": self._tag, "actions": auth.may_act(request, self.port, self._actions)}

    def _story(self, request: Request) -> list[dict[str, Any]]:
        before = request.query_params.get("before", "")
        with RunQueries(self._folder(request)) as reader:
            return api.story(reader, int(before) if EXPERIMENT.fullmatch(before) else reader.next_number())

    def _findings(self, request: Request) -> list[dict[str, Any]]:
        with RunQueries(self._folder(request)) as reader:
            return api.findings(reader)

    async def _act(self, request: Request) -> Response:
        """Do what a person with the token asks for."""
        if not auth.may_act(request, self.port, self._actions):
            return PlainTextResponse("actions need the address that `ar dashboard` printed, token included\n", 403)
        # A form of another page cannot send this type without asking first.
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            return PlainTextResponse("actions are sent as application/json\n", 415)
        body = await auth.read_body(request, MOST_ACTION_BYTES)
        if body is None:
            return PlainTextResponse("too long\n", 413)
        folder = self._folder(request)
        try:
            told = await run_in_threadpool(act, folder, body)
        except ArError as error:
            return PlainTextResponse(f"{error}\n", 400)
        return Response(encode(told), media_type="application/json")

    def _overview(self, request: Request) -> dict[str, Any]:
        with RunQueries(self._folder(request)) as reader:
            return {**api.overview(reader, self._quotas), "draws_samples": self._drawer is not None}

    def _lineage(self, request: Request) -> list[dict[str, Any]]:
        with RunQueries(self._folder(request)) as reader:
            return api.lineage(reader, reader.kept_or_demoted())

    async def _samples(self, request: Request) -> Response:
        assert self._drawer is not None
        folder = self._folder(request)
        refusal = await self._drawer.draw(request, folder, lambda: self._server.should_exit)
        return refusal or Response(encode(api.samples(folder)), media_type="application/json")

    def _all_runs(self) -> list[dict[str, Any]]:
        found = []
        for folder in self._folders()[-MAX_RUNS:]:
            try:
                with RunQueries(folder) as reader:
                    found.append(api.run_summary(reader))
            except (ArError, OSError):
                continue  # `ar status` says what is wrong with it; the other runs are still shown
        return found

    async def _state(self, request: Request) -> Response:
        return Response(await self._polling.state(self._folder(request)), media_type="application/json")

    async def _events(self, request: Request) -> Response:
        folder = self._folder(request)
        if request.method == "HEAD":
            # Nothing of a stream would be sent, so nothing would tell that the client is content with its headers.
            return Response(media_type="text/event-stream")
        return StreamingResponse(self._changes(folder), media_type="text/event-stream")

    async def _changes(self, folder: Path) -> AsyncIterator[str]:
        """Yield the state as server-sent events whenever it has changed, until the page or the server goes."""
        last, sent = "", 0.0
        while not self._server.should_exit:
            text = await self._polling.state(folder)
            if text != last or time.monotonic() - sent > KEEP_ALIVE_SECONDS:
                yield f"data: {text}\n\n" if text != last else ": alive\n\n"
                last, sent = text, time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)


class Assets(StaticFiles):
    """The page's own files. Starlette finds them and refuses paths that lead out; only ASSET_SUFFIXES are served."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Find a file that lies directly in the folder and has a listed ending."""
        if Path(path).name != path or not path.endswith(ASSET_SUFFIXES):
            return "", None
        return super().lookup_path(path)


class Polling:
    """The states of runs as JSON, looked at in one thread for all pages together."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "polling")
        self._runs: dict[Path, tuple[tuple[int, int], RunFollower, dict[str, float]]] = {}
        """Runs that are followed, each with its ledger's identity (see `_identity`) and its yardsticks."""
        self._last: dict[Path, tuple[float, str]] = {}

    async def state(self, folder: Path) -> str:
        """Give the run's state, at most LOOK_SECONDS old. A damaged ledger is a state too, with an `error` in it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, folder)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)

    def _look(self, folder: Path) -> str:
        at, text = self._last.get(folder, (-LOOK_SECONDS, ""))
        if time.monotonic() - at < LOOK_SECONDS:
            return text
        try:
            ledger = _identity(folder / LEDGER_NAME)
            if folder in self._runs and self._runs[folder][0] != ledger:
                del self._runs[folder]  # deleted and begun anew, or restored: the file that is open is nobody's
            if folder not in self._runs:
                reader = RunQueries(folder)
                self._runs[folder] = ledger, RunFollower(reader), yardsticks_of(reader.run())
            _, follower, yardsticks = self._runs[folder]
            state = api.state(follower.look(), yardsticks, WishFile(folder).read())
            # In a copied or renamed folder the run has another name, and the page would act on the run of that name.
            text = encode({**state, "tag": folder.name})
        except (ArError, OSError) as error:
            self._runs.pop(folder, None)  # the next look opens it again
            text = encode({"tag": folder.name, "error": str(error)})
        self._last[folder] = time.monotonic(), text
        return text


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one of the same name. Raises `LedgerError` where there is none."""
    try:
        facts = path.stat()
    except OSError as error:
        raise LedgerError(
            f"the run {path.parent.name} is gone.", fix="“All runs” lists those that there are"
        ) from error
    return facts.st_dev, facts.st_ino


def encode(data: Any) -> str:
    """Write data as JSON that every browser reads: a number that is not finite becomes null."""
    try:
        return json.dumps(data, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(json_value(data), allow_nan=False, separators=(",", ":"))
