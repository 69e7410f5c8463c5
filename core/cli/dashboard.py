"""`ar dashboard`: a run as a local web page."""

from __future__ import annotations

import json
import secrets

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.errors import UsageError


@click.command()
@click.option("--tag", metavar="TAG", help="The run.  [default: the one that was started last]")
@click.option("--port", type=click.IntRange(0, 65535), default=8686, metavar="P", help="0 takes any free one.")
@click.option(
    "--host", default="127.0.0.1", metavar="ADDRESS", help="Where to listen; beyond loopback it takes a token."
)
@pass_settings
def dashboard(settings: Settings, tag: str | None, port: int, host: str) -> None:
    """Serve a run as a web page that follows it, until Ctrl-C.

    The page only reads, and loads nothing from elsewhere. Prints its address.
    """
    from autoresearch.core.cli.runs import open_reader
    from autoresearch.core.report.gather import yardsticks_of
    from autoresearch.core.report.serve import Dashboard, is_loopback

    with open_reader(settings.workspace, tag) as reader:
        folder, run = reader.folder, reader.run()
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    try:
        server = Dashboard((host, port), folder, yardsticks_of(run), token)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error}.", fix="choose another --port (0 takes any free one) or --host"
        ) from error
    address = f"http://{host}:{server.server_address[1]}/" + (f"?token={token}" if token else "")
    click.echo(json.dumps({"url": address, "tag": run.tag}) if settings.json else address)
    settings.say(f"{run.tag}; Ctrl-C ends it")
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        pass
    finally:
        server.stopping.set()
        server.server_close()
