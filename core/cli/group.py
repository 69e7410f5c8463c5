"""Groups of commands that refuse an option given twice, where click would take the last value in silence."""

from __future__ import annotations

import click


class Group(click.Group):
    """A group that refuses an option given twice, its own or a command's, unless the option is made to be repeated."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the group's own options."""
        refuse_repeated(ctx, args)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names, and look at its options before it does."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not isinstance(command, Group):
            refuse_repeated(click.Context(command, info_name=name, parent=ctx), rest)
        return name, command, rest


def refuse_repeated(ctx: click.Context, arguments: list[str]) -> None:
    """Raise `click.UsageError` if a command's arguments hold an option twice that takes one value."""
    if ctx.resilient_parsing:  # completing a line that is still being typed
        return
    _, _, given = ctx.command.make_parser(ctx).parse_args(list(arguments))
    for one in given:
        takes_one = isinstance(one, click.Option) and not (one.multiple or one.count or one.is_flag)
        if takes_one and given.count(one) > 1:
            raise click.UsageError(f"{max(one.opts, key=len)} is given more than once: give it once", ctx=ctx)
