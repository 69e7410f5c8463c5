"""The list of all commands. Each is imported when it is called, so that `ar --help` imports click and nothing else."""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click


class Entry(NamedTuple):
    """A command's place, and its line in `ar --help`."""

    module: str
    attribute: str
    help: str


COMMANDS = {
    "doctor": Entry(
        "autoresearch.core.cli.doctor", "doctor", "Check every prerequisite and say how to fix what is missing."
    ),
    "init": Entry("autoresearch.core.cli.init", "init", "Make a new workspace."),
    "prepare": Entry("autoresearch.core.cli.prepare", "prepare", "Prepare a corpus: splits, tokenizers, shards."),
    "train": Entry("autoresearch.core.cli.train", "train", "Run one trial of a train file."),
    "adopt": Entry("autoresearch.core.cli.adopt", "adopt", "Measure a script written for upstream, unchanged."),
    "loop": Entry(
        "autoresearch.core.cli.run.command", "loop", "Run the research loop: propose, train, score, keep or discard."
    ),
    "brief": Entry("autoresearch.core.cli.brief", "brief", "Print what a researcher should know now."),
    "submit": Entry("autoresearch.core.cli.submit", "submit", "Hand in a train file as one experiment."),
    "result": Entry("autoresearch.core.cli.result", "result", "Show what became of a submission."),
    "mcp": Entry("autoresearch.core.cli.mcp", "mcp", "Serve submit, brief and results to an agent, by MCP over stdio."),
    "status": Entry("autoresearch.core.cli.status", "status", "Show how each run is going, one line each."),
    "fleet": Entry("autoresearch.core.cli.fleet", "fleet", "Show who uses a Ray cluster; pause runs, drain nodes."),
    "results": Entry("autoresearch.core.cli.results", "results", "Show a run's experiments as a table."),
    "diff": Entry("autoresearch.core.cli.diff", "diff", "Show what differs between two train files of a run."),
    "note": Entry("autoresearch.core.cli.note", "note", "Add a note to an experiment, for researchers to read."),
    "pin": Entry("autoresearch.core.cli.pin", "pin", "Keep showing an experiment to researchers."),
    "watch": Entry("autoresearch.core.cli.watch", "watch", "Follow a run in the terminal."),
    "dashboard": Entry("autoresearch.core.cli.dashboard", "dashboard", "Follow a run on a local web page."),
    "report": Entry("autoresearch.core.cli.report", "report", "Write a run's report: one HTML file to send around."),
    "apply": Entry("autoresearch.core.cli.apply", "apply", "Write a run's best train file into the checkout."),
    "sample": Entry("autoresearch.core.cli.sample", "sample", "Let a run's best model continue a text."),
    "export": Entry("autoresearch.core.cli.export", "export", "Write a run's model into a folder that needs no ar."),
    "certify": Entry(
        "autoresearch.core.cli.certify", "certify", "Write a run's claim as a file that others can check."
    ),
    "reproduce": Entry(
        "autoresearch.core.cli.reproduce", "reproduce", "Check a certificate, and repeat its measurement."
    ),
    "verify": Entry("autoresearch.core.cli.verify", "verify", "Measure the best file on the held-out test set."),
    "ablate": Entry("autoresearch.core.cli.ablate", "ablate", "Find kept changes that no longer help."),
    "scale": Entry("autoresearch.core.cli.scale", "scale", "See if the improvement holds at other budgets and widths."),
    "rm": Entry("autoresearch.core.cli.rm", "rm", "Delete a run."),
    "bench": Entry("autoresearch.core.cli.bench", "bench", "Measure one backend: speed, MFU, memory, overhead."),
    "compare": Entry("autoresearch.core.cli.compare", "compare", "Compare two backends on the same work."),
    "ideas": Entry("autoresearch.core.cli.ideas", "ideas", "Search the idea bank: published changes and their effect."),
    "config": Entry("autoresearch.core.cli.config", "config", "Show every option's value and where it was set."),
    "completion": Entry("autoresearch.core.cli.completion", "completion", "Print the shell's completion script."),
}


def load_command(name: str) -> click.Command:
    """Import a command by its name in COMMANDS. Raises `KeyError` for an unknown name."""
    entry = COMMANDS[name]
    command = getattr(importlib.import_module(entry.module), entry.attribute)
    if not isinstance(command, click.Command):
        raise TypeError(f"{entry.module}.{entry.attribute} is not a click command")
    return command
