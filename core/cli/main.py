"""The command line's frame: the group, its options, and how errors end.

Commands are named here and imported when called, so that `ar --help` imports click and nothing else.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from autoresearch import __version__
from autoresearch.core.cli import archiver, configfile, examples
from autoresearch.core.cli.context import Settings, find_workspace, global_options
from autoresearch.core.errors import ArError


class Entry(NamedTuple):
    """Where a command lives, and its line in `ar --help`."""

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
    "loop": Entry(
        "autoresearch.core.cli.run.command", "loop", "The main job: propose, train, score, keep or discard; repeat."
    ),
    "status": Entry("autoresearch.core.cli.status", "status", "How a run is going, in one line."),
    "fleet": Entry("autoresearch.core.cli.fleet", "fleet", "Who uses what on a Ray cluster; pause runs, drain nodes."),
    "results": Entry("autoresearch.core.cli.results", "results", "A run's experiments, as a table."),
    "watch": Entry("autoresearch.core.cli.watch", "watch", "Look at a run while it goes on."),
    "dashboard": Entry("autoresearch.core.cli.dashboard", "dashboard", "A run as a local web page that follows it."),
    "report": Entry("autoresearch.core.cli.report", "report", "Write a run's report: one HTML file to send around."),
    "apply": Entry("autoresearch.core.cli.apply", "apply", "Write a run's best train file into the checkout."),
    "verify": Entry("autoresearch.core.cli.verify", "verify", "Measure the best file on the hidden test text."),
    "ablate": Entry("autoresearch.core.cli.ablate", "ablate", "Find kept changes that no longer help."),
    "bench": Entry(
        "autoresearch.core.cli.bench", "bench", "Measure one backend: speed, MFU, memory, what is not training."
    ),
    "compare": Entry("autoresearch.core.cli.compare", "compare", "Both backends side by side on the same work."),
    "ideas": Entry("autoresearch.core.cli.ideas", "ideas", "The idea bank: what helped others, and what hurt."),
    "config": Entry("autoresearch.core.cli.config", "config", "Every option's value, and where it comes from."),
    "completion": Entry("autoresearch.core.cli.completion", "completion", "Print the shell's completion script."),
}
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


NoArguments = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What newer versions of click raise for a bare `ar`; older ones show the help themselves."""


class Failure(click.ClickException):
    """An error as one line on stderr, with the exit code of its kind."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class; every error has its own here

    def show(self, file: object = None) -> None:
        """Write the line."""
        click.echo(f"ar: {self.message}", err=True)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of a run's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command."""
        entry = COMMANDS.get(name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}.{entry.attribute} is not a click command")
        if not (command.epilog or "").startswith("\b"):
            command.epilog = examples.epilog(name, command.epilog)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names; suggest one when there is none."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
            hint = f" Did you mean {' or '.join(repr(match) for match in near)}?" if near else ""
            raise click.UsageError(f"there is no command {name!r}.{hint}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete command names without importing them."""
        named = [
            CompletionItem(name, help=entry.help) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; turn what goes wrong into one line and an exit code."""
        try:
            return super().invoke(ctx)
        except ArError as error:
            raise Failure(str(error), error.exit_code) from error
        except BrokenPipeError:
            # The reader of our output has left (`ar results | head`): stop quietly, as other tools do.
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives until the process ends
            raise click.exceptions.Exit(EXIT_BROKEN_PIPE) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(ctx.obj, Settings) and ctx.obj.verbosity > 0:
                click.echo(traceback.format_exc(), err=True, nl=False)
                raise Failure(f"unexpected {type(error).__name__}.", 1) from error
            detail = " ".join(str(error).split()) or "no message"
            raise Failure(f"unexpected {type(error).__name__}: {detail} (run with -v for the traceback)", 1) from error


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "AR",
        "show_default": True,
        "max_content_width": 110,
    },
    epilog="The options above may also follow the command. Every option has an environment variable: AR_BACKEND, "
    "AR_LOOP_HOURS ... Exit codes: 0 done, 1 failed, 2 usage, 3 a prerequisite is missing, 4 a limit was reached "
    "before the goal, 130 interrupted.",
)
@global_options(hidden=False)
@click.version_option(__version__, message="ar %(version)s (autoresearch-dual)")
@click.pass_context
def cli(
    ctx: click.Context,
    backend: str | None,
    preset: str | None,
    workspace: Path | None,
    json: bool | None,
    verbose: int | None,
    quiet: bool | None,
    data_dir: Path | None,
) -> None:
    """Improve a small language model overnight, with a score that cannot be faked."""
    ctx.obj = Settings(workspace=find_workspace(Path.cwd())).override(
        backend=backend,
        preset=preset,
        workspace=workspace,
        json=json,
        verbose=verbose,
        quiet=quiet,
        data_dir=data_dir,
    )


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Everything that goes wrong is a line on stderr."""
    try:
        code = cli.main(args=list(arguments), prog_name="ar", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except NoArguments as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.UsageError as error:
        named = next((f"ar {word}" for word in arguments if word in COMMANDS), "ar")
        where = error.ctx.command_path if error.ctx else named
        message = " ".join(error.format_message().split())
        if message:
            message = f"{message[0].lower()}{message[1:]}"
            message += "" if message.endswith((".", "?")) else "."
            click.echo(f"ar: {message}{origin(error)}{home(error)} Try '{where} --help'.", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED


def origin(error: click.UsageError) -> str:
    """Where a value that does not fit was written, if it was no flag."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return ""
    found = configfile.origin_of(error.ctx, error.param)
    return f" It comes from {found}." if found else ""


def home(error: click.UsageError) -> str:
    """Where an option belongs that was given in the wrong place."""
    if not isinstance(error, click.NoSuchOption) or error.possibilities:
        return ""
    names = [
        name
        for name in COMMANDS
        if any(error.option_name in option.opts for option in configfile.options_of(configfile.imported(name)).values())
    ]
    if not names:
        return ""
    others = f" (and of {', '.join(names[1:])})" if names[1:] else ""
    return f" It is an option of '{names[0]}'{others}: ar {names[0]} {error.option_name} ..."


def main() -> None:
    """Entry point of `ar` and `autoresearch`."""
    if archiver.is_archiver_call(sys.argv, COMMANDS):
        archiver.hand_over(sys.argv)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
