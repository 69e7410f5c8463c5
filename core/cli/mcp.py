"""`ar mcp`: the commands for agents as a server of the Model Context Protocol, over stdio."""

from __future__ import annotations

import importlib.util

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.errors import PrerequisiteError


@click.command()
@click.option(
    "--tag", metavar="TAG", help="Name of the run.  [default: the one in progress, or the last one, or a new one]"
)
@pass_settings
def mcp(settings: Settings, tag: str | None) -> None:
    """Serve an agent over stdio with the Model Context Protocol: brief, submit, result, results and more.

    For agents that call tools. A trial runs in a process of its own and reports its progress; if the agent leaves, the
    next call continues it. Writes only in the workspace, and prepared text in the data folder. Needs the extra mcp.
    """
    from autoresearch.core.cli.submissions import check_workspace

    if importlib.util.find_spec("mcp") is None:
        raise PrerequisiteError("the MCP library is not installed.", fix="pip install 'autoresearch-dual[mcp]'")
    check_workspace(settings)
    from autoresearch.core.cli.mcp_server import make_server

    make_server(settings, tag).run("stdio")
