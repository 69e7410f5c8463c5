"""`ar completion`: the shell's completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_WHERE = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/config.fish"}


@click.command(
    epilog='To keep it: put  eval "$(ar completion bash)"  into ~/.bashrc (zsh: ~/.zshrc), or  '
    "ar completion fish | source  into ~/.config/fish/config.fish. Use --name autoresearch if you call it by that name."
)
@click.argument("shell", type=click.Choice(list(_WHERE)))
@click.option("--name", default="ar", help="Name under which you call ar.")
def completion(shell: str, name: str) -> None:
    """Print a completion script for bash, zsh or fish."""
    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise click.UsageError(f"no completion for {shell}")
    # The variable is fixed: `main` always answers as `ar`, under whichever name it was called.
    script = shell_class(click.get_current_context().find_root().command, {}, name, "_AR_COMPLETE")
    click.echo(script.source())
