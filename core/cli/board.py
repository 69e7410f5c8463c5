"""The page of certificates: `python -m autoresearch.core.cli.board FOLDER > docs/board/index.html` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from autoresearch.core.takeaway.board import page, read_board


def main(folder: Path) -> int:
    """Print the page of a folder's certificates; name what is none on standard error, and return 1 if there is any."""
    if not folder.is_dir():
        click.echo(f"ar: {folder} is not a folder.", err=True)
        return 2
    lines, refused = read_board(folder)
    for name, why in refused:
        click.echo(f"ar: left out: {name}: {why}", err=True)
    click.echo(page(lines), nl=False)
    return 1 if refused else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        click.echo("usage: python -m autoresearch.core.cli.board FOLDER", err=True)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
