"""Help, examples and the command reference."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from autoresearch.core.cli import main
from autoresearch.core.cli.commands import load_command
from autoresearch.core.cli.examples import EXAMPLES
from autoresearch.core.cli.reference import reference

DOCS = Path(__file__).parents[3] / "docs"


def test_every_command_shows_examples(capsys):
    assert set(EXAMPLES) == set(main.COMMANDS)
    for name in main.COMMANDS:
        assert main.run([name, "--help"]) == 0
        out = capsys.readouterr().out
        for call, what in EXAMPLES[name]:
            assert call in out, name
            assert what in out, name
        assert "\b" not in out


@pytest.mark.parametrize("call", [call for calls in EXAMPLES.values() for call, _ in calls if call.startswith("ar ")])
def test_every_example_is_a_call_that_the_command_takes(call):
    words = shlex.split(call.partition(" > ")[0])[1:]
    with main.cli.make_context("ar", words, resilient_parsing=True) as root:
        # Without resilience: an option that does not exist, or a value that does not fit, is an error here.
        name = next(word for word in words if word in main.COMMANDS)
        command, rest = load_command(name), words[words.index(name) + 1 :]
        while isinstance(command, click.Group) and not (command.invoke_without_command and not rest):
            command = command.get_command(root, rest.pop(0))
        command.make_context(name, rest, parent=root)


def test_the_command_reference_is_what_the_commands_say():
    stale = "docs/commands.md is stale: make docs"
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == reference(), stale
