"""A group of options is a dataclass: each field is declared once."""

from __future__ import annotations

from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from autoresearch.core.cli.params import BackendName, ExistingFolder, Level, add_options, option


@dataclass(frozen=True)
class Group:
    hours: float | None = option(type=float, metavar="H", help="Hours until the end.")
    model: tuple[str, ...] = option(multiple=True)
    timeout: float = option(default=60.0, type=float, show_default=True)
    last: int | None = option("-n", "--number", type=int)


def call(*arguments):
    seen = []

    @click.command()
    @add_options(Group, "group")
    def command(group):
        seen.append(group)

    done = CliRunner().invoke(command, arguments)
    return seen[0] if seen else done.output


def test_a_command_gets_its_options_as_one_group():
    assert call("--hours", "2", "--model", "a", "--model", "b", "-n", "3") == Group(2.0, ("a", "b"), 60.0, 3)


def test_options_that_are_not_given_are_the_dataclass_s_own_defaults():
    assert call() == Group()


def test_flags_and_helps_come_from_the_fields():
    shown = call("--help")
    for words in ("--hours H", "Hours until the end.", "--model", "[default: 60.0]", "-n, --number"):
        assert words in shown


def test_levels_are_those_of_the_contract():
    @click.command()
    @click.option("--level", type=Level())
    def command(level):
        click.echo(level)

    assert CliRunner().invoke(command, ["--level", "landlock"]).output == "landlock\n"
    refused = CliRunner().invoke(command, ["--level", "none"])
    assert refused.exit_code == 2
    assert "'none' is not one of 'bubblewrap', 'landlock', 'seatbelt', 'process'." in refused.output


def test_a_backend_has_the_names_that_people_expect():
    for name, backend in (("cuda", "cuda"), ("torch", "cuda"), ("PyTorch", "cuda"), ("MLX", "mlx"), ("auto", "auto")):
        assert BackendName().convert(name, None, None) == backend
    with pytest.raises(click.BadParameter, match="Did you mean torch"):
        BackendName().convert("tourch", None, None)


def test_a_folder_must_exist_and_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ExistingFolder().convert("~", None, None) == tmp_path
    for name in (str(tmp_path / "nope"), "~nobody-has-this-name/x", __file__):
        with pytest.raises(click.BadParameter):
            ExistingFolder().convert(name, None, None)
