"""The entry point `ar`: the command group, the shared options, and errors turned into a line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from autoresearch import __version__
from autoresearch.core.cli import archiver, configfile, examples
from autoresearch.core.cli.commands import COMMANDS, load_command
from autoresearch.core.cli.context import Settings, SharedOptions, find_workspace, standing_in
from autoresearch.core.cli.entry import EXIT_INTERRUPTED
from autoresearch.core.cli.group import Group
from autoresearch.core.cli.params import add_options
from autoresearch.core.errors import ArError, PrerequisiteError, system_words
from autoresearch.core.report.wording import one_line

EXIT_FAILED, EXIT_USAGE = 1, 2
SYSTEM_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, then give the same command again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check its permissions, or name another place"),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR), "name another file or folder"),
}
"""Fixes for what the system refuses at a file, by the number of its error."""
OTHER_WORDS = {
    **dict.fromkeys(("why", "show", "explain"), "results --why N"),
    **dict.fromkeys(("log", "logs", "history"), "results"),
    **dict.fromkeys(("ls", "list", "runs"), "status"),
    **dict.fromkeys(("run", "start", "resume", "continue", "tune"), "loop"),
    **dict.fromkeys(("delete", "remove"), "rm"),
    **dict.fromkeys(("serve", "web", "ui"), "dashboard"),
    **dict.fromkeys(("plot", "findings"), "report"),
    **dict.fromkeys(("eval", "trial"), "train"),
    **dict.fromkeys(("generate", "chat"), "sample"),
    **dict.fromkeys(("setup", "check"), "doctor"),
    "test": "verify",
}
"""Other tools' words for commands: by their letters alone another one would be suggested, or none."""
EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE, as a shell reports it."""
NoArguments = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""The error that click 8.2 and later raise for a bare `ar`; older ones show the help themselves."""


class Failure(click.ClickException):
    """An error that is shown as one line on stderr, with the exit code of its kind."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class; every error has its own here

    def show(self, file: object = None) -> None:
        """Write the line."""
        click.echo(f"ar: {self.message}", err=True)


class LazyGroup(Group):
    """A group that imports a command when it is called."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options above all commands; --help and --version print here, maybe to a reader that has left."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError:
            raise _reader_has_left() from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands, in the order of a run's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import one command."""
        if name not in COMMANDS:
            return None
        command = load_command(name)
        if not (command.epilog or "").startswith("\b"):
            command.epilog = examples.epilog(name, command.epilog)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names; suggest similar names when there is none.

        `ar help` shows what `ar --help` shows, and `ar help loop` what `ar loop --help` does.
        """
        name = args[0]
        if name == "help" and not ctx.resilient_parsing:
            if args[1:] and args[1] not in ("help", *ctx.help_option_names):
                return self.resolve_command(ctx, [*args[1:], "--help"])
            click.echo(ctx.get_help())
            ctx.exit()
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib

            meant = OTHER_WORDS.get(name.lower())
            near = [meant] if meant else difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
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
            _check_surroundings()
            return super().invoke(ctx)
        except ArError as error:
            raise Failure(one_line(str(error)), error.exit_code) from error
        except BrokenPipeError:
            raise _reader_has_left() from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            told = system_failure(error)
            if told is not None and ctx.obj.verbosity <= 0:
                raise told from error
            if isinstance(ctx.obj, Settings) and ctx.obj.verbosity > 0:
                click.echo(traceback.format_exc(), err=True, nl=False)
                raise Failure(f"unexpected {type(error).__name__}.", 1) from error
            detail = " ".join(str(error).split()) or "no message"
            raise Failure(f"unexpected {type(error).__name__}: {detail} (run with -v for the traceback)", 1) from error


def _check_surroundings() -> None:
    """Raise `PrerequisiteError` where trials cannot work, whatever the command."""
    if sys.platform == "win32":
        fix = "open a WSL shell (docs/machines/wsl.md says how) and call ar there"
        raise PrerequisiteError("Windows itself has no sandbox for trials.", fix=fix)
    mask = os.umask(0o077)  # there is no other way to ask for it
    os.umask(mask)
    if mask & 0o700:
        message = f"this shell's umask, {mask:03o}, takes from you what you may do with every file that ar makes."
        raise PrerequisiteError(message, fix="umask 022, then give the same command again")
    if not Path(os.devnull).exists():
        message = f"{os.devnull} is missing, which git and trials need."
        raise PrerequisiteError(message, fix="mount a whole /dev, as containers do unless they are told otherwise")


def _reader_has_left() -> click.exceptions.Exit:
    """Stop quietly, as other tools do, when the reader of our output has left (`ar results | head`)."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives until the process ends
    return click.exceptions.Exit(EXIT_BROKEN_PIPE)


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "AR",
        "show_default": True,
        "max_content_width": 110,
    },
    epilog="The options above may also follow the command. Every option has an environment variable: AR_BACKEND, "
    "AR_LOOP_HOURS ... Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a prerequisite is missing, 4 a "
    "limit was reached before the goal, 130 interrupted.",
)
@add_options(SharedOptions, "given", default=None, show_envvar=True)
@click.version_option(__version__, message="ar %(version)s (autoresearch-dual)")
@click.pass_context
def cli(ctx: click.Context, given: SharedOptions) -> None:
    """Improve a small language model overnight, by a score that the edited file does not compute."""
    ctx.obj = Settings(workspace=find_workspace(standing_in())).override(given)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Every error becomes a line on stderr."""
    try:
        code = cli.main(args=list(arguments), prog_name="ar", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except NoArguments as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.UsageError as error:
        named = next((f"ar {word}" for word in arguments if word in COMMANDS), "ar")
        where = error.ctx.command_path if error.ctx else named
        place = home(error, arguments)
        # An option that another command has was meant so, whatever it resembles here.
        message = " ".join((error.message if place else error.format_message()).split())
        if message:
            message = f"{message[0].lower()}{message[1:]}"
            message += "" if message.endswith((".", "?", "?)")) else "."
            click.echo(f"ar: {message}{origin(error)}{place} Try '{where} --help'.", err=True)
        return error.exit_code
    except ArError as error:  # before the group is called: the options above all commands are read first
        click.echo(f"ar: {one_line(str(error))}", err=True)
        return error.exit_code
    except OSError as error:  # likewise: the help of ar finds no room
        told = system_failure(error)
        if told is None:
            raise
        told.show()
        return told.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("ar: stopped", err=True)
        return EXIT_INTERRUPTED


def system_failure(error: Exception) -> Failure | None:
    """Return the line for what the system refused, where nobody nearer to it has said more; None for others.

    A name that is too long was typed: wrong usage. Output that finds no room has no name. Memory is refused by a limit.
    """
    if isinstance(error, MemoryError):
        what = "end other programs, or raise the limit (`ulimit -v`, a container's), then give the same command again"
        return Failure(f"the memory is used up. Fix: {what}", EXIT_FAILED)
    if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
        words = f"the output cannot be written: {system_words(error)}. Fix: {SYSTEM_FIXES[error.errno]}"
        return Failure(words, EXIT_FAILED)
    fix = SYSTEM_FIXES.get(error.errno or 0) if isinstance(error, OSError) and error.filename is not None else None
    if fix is None or not isinstance(error, OSError):
        return None
    name = one_line(os.fsdecode(error.filename) if not isinstance(error.filename, int) else str(error.filename), 200)
    code = EXIT_USAGE if error.errno == errno.ENAMETOOLONG else EXIT_FAILED
    return Failure(f"{name}: {system_words(error)}. Fix: {fix}", code)


def origin(error: click.UsageError) -> str:
    """Say where a value that does not fit was set, unless it was a flag."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return ""
    found = configfile.origin_of(error.ctx, error.param)
    return f" It comes from {found}." if found else ""


def home(error: click.UsageError, arguments: Sequence[str]) -> str:
    """Say which command has an option that was given in the wrong place: the command that was called, if it has it."""
    if not isinstance(error, click.NoSuchOption):
        return ""
    names = [
        name
        for name in COMMANDS
        if any(error.option_name in option.opts for option in configfile.options_of(load_command(name)).values())
    ]
    if not names:
        return ""
    if called := next((name for name in names if name in arguments), None):
        return f" It is an option of '{called}' and belongs behind it: ar {called} {error.option_name} ..."
    others = f" (and of {', '.join(names[1:])})" if names[1:] else ""
    return f" It is an option of '{names[0]}'{others}: ar {names[0]} {error.option_name} ..."


def main() -> None:
    """Run the command line that this process was started with, or hand it over to the archiver; `entry` calls it."""
    if archiver.is_archiver_call(sys.argv, COMMANDS):
        archiver.hand_over(sys.argv)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
