"""`ar ideas`: search the idea bank, published changes and the workspace's own."""

from __future__ import annotations

from typing import Any, get_args

import click

from autoresearch.core.cli.context import Settings, pass_settings
from autoresearch.core.proposal import CATEGORIES, Platform

EXAMPLE = """\
# ideas.toml in the workspace: your own ideas, read before every proposal of a language model
[[idea]]
change = "what to change, in a few words"
platform = "any"        # b200, h100, rtx, cpu, apple or any
category = "attention"  # see `ar ideas --help`
verdict = "helps"       # helps, hurts, neutral or mixed
delta = -0.002          # change of val_bpb; leave it out where no number is known
source = "a paper, a run, a hunch"
confidence = "low"      # low, medium or high
added = "2026-11"       # the month, for `ar ideas --since`; may be left out
"""


class Month(click.DateTime):
    """A month, or a day of it, as the text of its month: "2026-05"."""

    def __init__(self) -> None:
        super().__init__(["%Y-%m", "%Y-%m-%d"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no month and no day."""
        try:
            return f"{super().convert(value, param, ctx):%Y-%m}"
        except click.BadParameter:
            self.fail(f"{value!r} is neither a month such as 2026-05 nor a day such as 2026-05-31.", param, ctx)


@click.command()
@click.option(
    "--platform",
    type=click.Choice(get_args(Platform)),
    help="Show only ideas measured on this kind of device.",
)
@click.option(
    "--category",
    type=click.Choice(CATEGORIES),
    metavar="NAME",
    help=f"Show only ideas about one of: {', '.join(CATEGORIES)}.",
)
@click.option(
    "--verdict", type=click.Choice(["helps", "hurts", "neutral", "mixed"]), help="Show only ideas with this effect."
)
@click.option(
    "--since",
    type=Month(),
    metavar="YYYY-MM",
    help="Show only ideas added to the bank since then.",
)
@click.option("--search", metavar="TEXT", help="Show only ideas with this text in the change or its source.")
@click.option("--example", is_flag=True, help="Print a template for your own ideas.toml instead.")
@pass_settings
def ideas(
    settings: Settings,
    platform: str | None,
    category: str | None,
    verdict: str | None,
    since: str | None,
    search: str | None,
    example: bool,
) -> None:
    """Search published changes to models like these: the effect, its size and the device.

    Most come from single runs on other machines: hints, not facts. -v shows each source. Add your own in `ideas.toml`
    in the workspace.
    """
    from autoresearch.agent.llm.ideas import load_ideas

    if example:
        click.echo(EXAMPLE, nl=False)
        return
    wanted = {"platform": platform, "category": category, "verdict": verdict}
    found = [
        idea
        for idea in load_ideas(settings.workspace)
        if all(value in (None, getattr(idea, name)) for name, value in wanted.items())
        and (since is None or (idea.added or "") >= since)
        and (search is None or search.lower() in f"{idea.change} {idea.source}".lower())
    ]
    if settings.json:
        for idea in found:
            click.echo(idea.model_dump_json())
        return
    for idea in found:
        delta = "" if idea.delta is None else f"{idea.delta:+.4f}"
        click.echo(f"{idea.platform:<6} {idea.category:<17} {idea.verdict:<8} {delta:>8}  {idea.change}")
        if settings.verbosity > 0:
            click.echo(f"{'':<42} {idea.source} ({idea.confidence} confidence)")
    if not found:
        settings.say("no idea matches; `ar ideas` without options lists all")
