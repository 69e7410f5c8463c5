"""Samples that a page asks for: `ar sample` in a process of its own, one at a time.

This is the only request that starts anything. A web page elsewhere must not be able to make it, so it has to come from
the dashboard's own page: browsers say where a request comes from, and send JSON to another site only where that site
allows it, which this server never does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from autoresearch.core.report.web.auth import is_same_origin, read_body
from autoresearch.core.report.wording import one_line

MOST_BODY_BYTES = 2**16
MOST_PROMPTS, MOST_CHARACTERS, MOST_TOKENS = 4, 4000, 400
"""Limits of one request: each token costs a pass over a whole row."""
LOOK_SECONDS = 0.3
"""Seconds between two looks whether the server ends."""
END_SECONDS = 3.0
"""Time that a draw has to end once it was told to; less than the server gives its answers."""
OUTPUT_BYTES = 2**20
"""Bytes of a draw's messages that are kept."""


class Asked(BaseModel):
    """A request for samples."""

    model_config = ConfigDict(strict=True, extra="forbid")
    prompts: Annotated[list[Annotated[str, Field(max_length=MOST_CHARACTERS)]], Field(max_length=MOST_PROMPTS)] = []
    baseline: bool = True
    tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 100
    temperature: Annotated[float, Field(ge=0.0, le=100.0, allow_inf_nan=False)] = 0.8
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    def arguments(self) -> list[str]:
        """Return the arguments of `ar sample`."""
        found = [f"--tokens={self.tokens}", f"--temperature={self.temperature!r}", f"--seed={self.seed}"]
        return [*found, *(["--baseline"] if self.baseline else []), "--", *self.prompts]


class SampleDrawer:
    """Draws samples of runs with `command`, which gives the command line for a run's tag and arguments."""

    def __init__(self, command: Callable[[str, Sequence[str]], list[str]]) -> None:
        self._command, self._busy = command, False

    async def draw(self, request: Request, folder: Path, is_ending: Callable[[], bool]) -> Response | None:
        """Draw what is asked for; return the refusal in words, or None when the run's folder has new samples.

        Once `is_ending` is true, the draw is ended.
        """
        if not is_own_page(request):
            return PlainTextResponse("samples are drawn for the dashboard's own page only\n", 403)
        body = await read_body(request, MOST_BODY_BYTES)
        if body is None:
            return PlainTextResponse("the request is too long\n", 413)
        try:
            asked = Asked.model_validate_json(body)
            command = self._command(folder.name, asked.arguments())
            [os.fsencode(one) for one in command]  # a lone surrogate is in no prompt
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the request"
            return PlainTextResponse(f"{one_line(where, 80)}: {one_line(first['msg'], 200)}\n", 400)
        except ValueError:
            return PlainTextResponse("a prompt has characters that no text has\n", 400)
        if any("\0" in one for one in command):
            return PlainTextResponse("a prompt has characters that no text has\n", 400)
        if self._busy:
            return PlainTextResponse("samples are being drawn already; wait for them\n", 409)
        self._busy = True
        try:
            return await self._run(command, is_ending)
        finally:
            self._busy = False

    async def _run(self, command: list[str], is_ending: Callable[[], bool]) -> Response | None:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None
        messages = asyncio.ensure_future(_last_bytes(process.stderr))
        try:
            while not (await asyncio.wait({messages}, timeout=LOOK_SECONDS))[0]:
                if is_ending():
                    return PlainTextResponse("the dashboard has ended\n", 503)
            said, code = messages.result(), await process.wait()
        finally:
            messages.cancel()
            if process.returncode is None:
                await _end(process)
        if code == 0:
            return None
        lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.startswith("ar: ")]
        why = lines[-1].removeprefix("ar: ") if lines else f"`ar sample` ended with code {code}"
        return PlainTextResponse(f"{one_line(why, 500)}\n", 422)


async def _last_bytes(stream: asyncio.StreamReader) -> bytes:
    """Read a stream to its end; return the last OUTPUT_BYTES."""
    said = b""
    while part := await stream.read(2**16):
        said = (said + part)[-OUTPUT_BYTES:]
    return said


async def _end(process: asyncio.subprocess.Process) -> None:
    """Tell a draw to end, and end it where it does not. Its children notice by themselves."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), END_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def is_own_page(request: Request) -> bool:
    """Tell whether a request comes from the dashboard's page, or from a program; not from another site's page."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return (
        kind == "application/json"
        and request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
        and is_same_origin(request)
    )
