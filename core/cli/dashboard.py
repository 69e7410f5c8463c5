"""`ar dashboard`: a local web page of the runs of a workspace."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.params import Whole
from autoresearch.core.errors import UsageError, system_words

if TYPE_CHECKING:
    from autoresearch.core.store.rows import ExperimentRow


@click.command()
@click.option("--tag", metavar="TAG", help="Run to show first.  [default: the one started last]")
@click.option("--port", type=Whole(0, 65535), default=8686, metavar="P", help="Port of the page; 0 takes any free one.")
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Address to serve the page at; any but this machine's own needs a token.",
)
@click.option(
    "--samples/--no-samples",
    default=None,
    help="Draw samples when the page asks for them, in the sandbox of `ar sample`.  "
    "[default: at this machine's own address only]",
)
@click.option(
    "--actions/--no-actions",
    default=None,
    help="Let the page add notes, pin experiments, and pause or stop the loop.  [default: at this machine's "
    "own address only]",
)
@pass_settings
def dashboard(
    settings: Settings, tag: str | None, port: int, host: str, samples: bool | None, actions: bool | None
) -> None:
    """Serve a web page that follows the runs, until Ctrl-C.

    Prints the page's address. The page loads nothing from other machines, and draws new samples on request. Whoever has
    the token in the address may also add a note to an experiment, pin it, pause the run's loop, and stop it as the
    first Ctrl-C does.
    """
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.report.web.auth import is_loopback
    from autoresearch.core.report.web.drawing import SampleDrawer
    from autoresearch.core.report.web.server import Dashboard

    if not host.strip():  # it would be every address of the machine
        raise UsageError("--host '' names no address.", fix="0.0.0.0 for all of this machine, or leave it out")
    with open_reader(settings, tag) as reader:
        folder = reader.folder
    secret = secrets.token_urlsafe(24)
    token = None if is_loopback(host) else secret
    act_token = secret if (is_loopback(host) if actions is None else actions) else None
    draws = is_loopback(host) if samples is None else samples
    drawer = SampleDrawer(partial(sample_command, settings)) if draws else None
    try:
        server = Dashboard(
            (host, port),
            folder.parent,
            token=token,
            quotas=quotas,
            drawer=drawer,
            actions=act_token,
            tag=folder.name,
        )
    except (OSError, OverflowError, UnicodeError) as error:
        # asyncio's own words repeat the address; a name that nobody knows has a negative number of its own kind. What
        # cannot be a name at all, as 127..0.0.1, is not even looked up.
        number = getattr(error, "errno", None) or 0
        raise UsageError(
            f"cannot listen on {host}:{port}: {os.strerror(number) if number > 0 else system_words(error)}.",
            fix="choose another --port (0 takes any free one) or --host",
        ) from error
    name = f"[{host}]" if ":" in host else host
    address = (
        f"http://{name}:{server.port}/"
        + (f"?token={secret}" if token or act_token else "")
        + f"#/{quote(folder.name, safe='')}"
    )
    click.echo(json.dumps({"url": address, "tag": folder.name}) if settings.json else address)
    settings.say(f"{folder.name}; Ctrl-C stops the dashboard, not the run")
    try:
        server.serve()
    except KeyboardInterrupt:
        pass


def sample_command(settings: Settings, tag: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of `ar sample` for a run of this workspace."""
    found = [sys.executable, "-m", "autoresearch.core.cli.main", "--json", "--workspace", str(settings.workspace)]
    found += [] if settings.data_dir is None else ["--data-dir", str(settings.data_dir)]
    return [*found, "sample", "--tag", tag, *arguments]


def quotas(decided: Sequence[ExperimentRow]) -> dict[str, Any] | None:
    """Describe what the quotas for language models require of the next proposal; None before their first one."""
    from autoresearch.agent.llm.quotas import BOLD, STRUCTURAL, WINDOW, counted, next_demand
    from autoresearch.core.run.history import attempt_of
    from autoresearch.core.stack_parts import STACKER

    # All that quotas look at: a language model's proposals, and stacks, which tell what was kept as a part.
    asked = (row for row in decided if "kind" in row.parameters or row.researcher == STACKER)
    attempts = [attempt_of(row, "") for row in asked]
    own = counted(attempts)
    if not own:
        return None
    demand = next_demand(attempts)
    return {
        "window": WINDOW,
        "structural": STRUCTURAL,
        "bold": BOLD,
        "kinds": [str(one.parameters["kind"]) for one in own[-WINDOW:]],
        "least": demand.least,
        "closed": demand.closed,
        "why": demand.why,
    }
