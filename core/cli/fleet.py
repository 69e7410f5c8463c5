"""`ar fleet`: show the nodes and runs of a Ray cluster; pause runs, drain nodes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.cli.group import Group
from autoresearch.core.errors import ArError, PrerequisiteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autoresearch.core.fleet.cluster import NodeResources
    from autoresearch.core.fleet.fair_scheduler import FleetUsage, RunUsage
    from autoresearch.core.fleet.ray import RayCluster

SHORT = 8
"""Characters of a node's id that are shown."""


def with_address(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --address, which may also stand before the command."""
    option = click.option(
        "--address", metavar="HOST:PORT", help="Address of the Ray cluster.  [default: this machine's cluster]"
    )
    return option(function)


@click.group(cls=Group, invoke_without_command=True)
@with_address
@pass_settings
def fleet(settings: Settings, address: str | None) -> None:
    """Show who uses a Ray cluster; pause and resume runs, drain nodes.

    Without a command it lists the nodes with their runs, and the runs with their slots. `ar loop --fleet ray` starts a
    run; several runs on one cluster share its devices by their --priority.
    """
    if click.get_current_context().invoked_subcommand is None:
        show(settings, address)


@fleet.command("status")
@with_address
@pass_settings
def fleet_status(settings: Settings, address: str | None) -> None:
    """List the nodes with their runs, and the runs with their slots."""
    show(settings, address)


@fleet.command("pause")
@click.argument("tag")
@with_address
@pass_settings
def pause(settings: Settings, tag: str, address: str | None) -> None:
    """Let a run start no more trials; running trials are finished. Lasts until the run's loop ends."""
    with connected(address) as cluster:
        run = find_run(cluster.scheduler().report(), tag)
        cluster.scheduler().pause(run["run"], True)
        told = f"{run['tag']} is paused{_finished(len(run['used']))}; `ar fleet resume {tag}` continues it"
        _answer(settings, {"run": run["run"], "tag": run["tag"], "paused": True, "running": len(run["used"])}, told)


@fleet.command("resume")
@click.argument("tag")
@with_address
@pass_settings
def resume(settings: Settings, tag: str, address: str | None) -> None:
    """Let a paused run continue."""
    with connected(address) as cluster:
        run = find_run(cluster.scheduler().report(), tag)
        cluster.scheduler().pause(run["run"], False)
        told = f"{run['tag']} continues" if run["paused"] else f"{run['tag']} was not paused"
        _answer(settings, {"run": run["run"], "tag": run["tag"], "paused": False, "running": len(run["used"])}, told)


@fleet.command("drain")
@click.argument("node")
@with_address
@pass_settings
def drain(settings: Settings, node: str, address: str | None) -> None:
    """Start no more trials on a node; trials that run there are finished.

    NODE is its host name, its address, or the beginning of its id.
    """
    with connected(address) as cluster:
        name, room = find_node(cluster.nodes(), node)
        cluster.scheduler().drain(name, True)
        running = sum(key[0] == name for run in cluster.scheduler().report()["runs"] for key in run["used"])
        told = f"{_called(name, room)} is drained{_finished(running)}; `ar fleet undrain {node}` uses it again"
        _answer(settings, {"node": name, "host": room.host, "drained": True, "running": running}, told)


@fleet.command("undrain")
@click.argument("node")
@with_address
@pass_settings
def undrain(settings: Settings, node: str, address: str | None) -> None:
    """Use a drained node again."""
    with connected(address) as cluster:
        name, room = find_node(cluster.nodes(), node)
        report = cluster.scheduler().report()
        running = sum(key[0] == name for run in report["runs"] for key in run["used"])
        cluster.scheduler().drain(name, False)
        told = f"{_called(name, room)} " + ("is used again" if name in report["drained"] else "was not drained")
        _answer(settings, {"node": name, "host": room.host, "drained": False, "running": running}, told)


def _answer(settings: Settings, record: Mapping[str, Any], told: str) -> None:
    """Say what stands now, as a line or with --json as an object; "running" counts trials that are finished first."""
    if settings.json:
        click.echo(json.dumps(record))
    else:
        settings.say(told)


def show(settings: Settings, address: str | None) -> None:
    """Print both tables, or one JSON object."""
    with connected(address) as cluster:
        nodes_by_id, report = cluster.nodes(), cluster.scheduler().report()
    nodes, runs = node_records(nodes_by_id, report), run_records(report)
    if settings.json:
        click.echo(json.dumps({"nodes": nodes, "runs": runs}))
        return
    click.echo("\n".join(table(("node", "host", "address", "device", "slots", "runs there", ""), map(node_row, nodes))))
    click.echo()
    if runs:
        heads = ("run", "host", "priority", "slots", "device time", "")
        click.echo("\n".join(table(heads, map(run_row, runs))))
    else:
        click.echo("no run uses it; `ar loop --fleet ray` starts one")


@contextmanager
def connected(address: str | None) -> Iterator[RayCluster]:
    """Connect to the cluster inside the block. Raises `PrerequisiteError` when there is none, or it does not answer."""
    from autoresearch.core.fleet.ray import RayCluster

    parent = click.get_current_context().parent
    if address is None and parent is not None:
        address = parent.params.get("address")  # `ar fleet --address X pause TAG`, AR_FLEET_ADDRESS, ar.toml
    cluster = RayCluster(address, start=False)
    try:
        yield cluster
    except (ArError, click.exceptions.Exit):
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        message = f"the cluster does not answer: {type(error).__name__}: {words}"
        raise PrerequisiteError(message, fix="look at `ray status` on its first machine") from error
    finally:
        cluster.close()


def find_run(report: FleetUsage, tag: str) -> RunUsage:
    """Find the run by its tag or its HOST:FOLDER. Raises `UsageError` unless exactly one fits."""
    found = [run for run in report["runs"] if tag in (run["tag"], run["run"])]
    if len(found) > 1:
        names = ", ".join(run["run"] for run in found)
        raise UsageError(f"{len(found)} runs on the fleet are called {tag!r}.", fix=f"one of {names}")
    if not found:
        tags = ", ".join(sorted(run["tag"] for run in report["runs"]))
        there = f"one of {tags}" if tags else "there is none now; `ar loop --fleet ray` starts one"
        raise UsageError(f"there is no run {tag!r} on the fleet.", fix=there)
    return found[0]


def find_node(nodes_by_id: Mapping[str, NodeResources], wanted: str) -> tuple[str, NodeResources]:
    """Find the node by host name, address or the beginning of its id. Raises `UsageError` unless exactly one fits."""
    found = [name for name, room in nodes_by_id.items() if wanted in (room.host, room.address)]
    found = found or [name for name in nodes_by_id if wanted and name.startswith(wanted)]
    if len(found) == 1:
        return found[0], nodes_by_id[found[0]]
    if found:
        fix = f"one of {', '.join(name[:SHORT] for name in sorted(found))}"
        raise UsageError(f"{len(found)} nodes of the fleet are called {wanted!r}.", fix=fix)
    there = ", ".join(sorted(_called(name, room) for name, room in nodes_by_id.items()))
    raise UsageError(f"there is no node {wanted!r} in the fleet.", fix=f"one of {there}")


def node_records(nodes_by_id: Mapping[str, NodeResources], report: FleetUsage) -> list[dict[str, Any]]:
    """Describe every live node for --json and the table."""
    records = []
    for name, room in sorted(nodes_by_id.items(), key=lambda item: (item[1].host, item[0])):
        users = [(run, sum(key[0] == name for key in run["used"])) for run in report["runs"]]
        keys = {tuple(key) for run in report["runs"] for key in run["places"] if key[0] == name}
        kinds = Counter(kind for _, kind, _ in keys)
        records.append(
            {
                "node": name,
                "host": room.host,
                "address": room.address,
                "cpus": room.cpus,
                "gpus": room.gpus,
                "machines": sorted({r["machine"] for r in report["runs"] if any(k[0] == name for k in r["places"])}),
                "places": max(kinds.values(), default=0),
                "used": [{"run": run["run"], "tag": run["tag"], "places": count} for run, count in users if count],
                "drained": name in report["drained"],
            }
        )
    return records


def run_records(report: FleetUsage) -> list[dict[str, Any]]:
    """Describe every run for --json and the table, its slots counted."""
    runs = sorted(report["runs"], key=lambda run: (run["tag"], run["run"]))
    return [{**run, "places": len(run["places"]), "used": len(run["used"])} for run in runs]


def node_row(node: Mapping[str, Any]) -> Sequence[str]:
    """Return the node's row of the table."""
    gpus = f", {node['gpus']:g} GPU{'s' if node['gpus'] != 1 else ''}" if node["gpus"] else ""
    what = (
        f"{node['cpus']:g} core{'s' if node['cpus'] != 1 else ''}{gpus}" if node["cpus"] else "none: it runs no trials"
    )
    runs = ", ".join(one["tag"] if one["places"] == 1 else f"{one['tag']} ({one['places']})" for one in node["used"])
    return (
        node["node"][:SHORT],
        node["host"],
        node["address"],
        "; ".join(node["machines"]) or what,
        str(node["places"]) if node["machines"] else "-",
        runs or "-",
        "drained" if node["drained"] else "",
    )


def run_row(run: Mapping[str, Any]) -> Sequence[str]:
    """Return the run's row of the table."""
    return (
        run["tag"],
        run["host"],
        f"{run['priority']:g}",
        f"{run['used']} of {run['places']}",
        f"{100 * run['share']:.0f} %",
        "paused" if run["paused"] else "",
    )


def table(heads: Sequence[str], rows: Any) -> list[str]:
    """Lay out rows in columns as wide as their widest text."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _called(name: str, room: NodeResources) -> str:
    return f"{room.host} ({name[:SHORT]})"


def _finished(trials: int) -> str:
    if not trials:
        return ""
    return f": {trials} trial{'s' if trials > 1 else ''} that {'run are' if trials > 1 else 'runs is'} finished first"
