"""Researchers and judges by the names that people give, imported when they are used."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from autoresearch.agent.llm.researcher import LLM
    from autoresearch.core.judge.decision import Judge
    from autoresearch.core.proposal import Researcher

RESEARCHERS = ("tuner", "llm", "command", "mix")
WITH_MODELS = ("llm", "mix")
JUDGES = {
    "racing": "autoresearch.core.judge.racing:Racing",
    "greedy": "autoresearch.core.judge.greedy:Greedy",
}
CALLS, DIGEST = "calls.jsonl", "digest.md"
"""In the run's folder: the account of calls to models, and what was learned."""
F = TypeVar("F", bound=Callable[..., Any])


class PriceParam(click.ParamType):
    """`MODEL=IN/OUT`, dollars per million tokens."""

    name = "price"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float, float]:
        """Refuse what is no price."""
        if isinstance(value, tuple):
            return cast("tuple[str, float, float]", value)
        model, _, numbers = str(value).rpartition("=")
        parts = numbers.split("/")
        try:
            usd_in, usd_out = (float(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is no price, such as openai/my-model=0.5/2 (dollars per million tokens)", param, ctx)
        if not model or not (0 <= usd_in < 1e6 and 0 <= usd_out < 1e6):
            self.fail(f"{value!r} is no price, such as openai/my-model=0.5/2 (dollars per million tokens)", param, ctx)
        return model, usd_in, usd_out


@dataclass(frozen=True)
class ResearcherOptions:
    """What was asked for about the researcher."""

    model: tuple[str, ...] = ()
    api_base: str | None = None
    max_usd: float | None = None
    price: tuple[tuple[str, float, float], ...] = ()
    context_tokens: int | None = None
    model_timeout: float = 600.0
    agent_command: str | None = None
    agent_timeout: float = 1200.0


_OPTIONS = (
    click.option(
        "--model", multiple=True, metavar="NAME", help="For llm and mix, by litellm's names; several may be given."
    ),
    click.option("--api-base", metavar="URL", help="A server of your own for the models."),
    click.option(
        "--max-usd", type=click.FloatRange(min=0, min_open=True), metavar="D", help="Of the run; calls in flight count."
    ),
    click.option(
        "--price", type=PriceParam(), multiple=True, metavar="MODEL=IN/OUT", help="Dollars per million tokens."
    ),
    click.option(
        "--context-tokens", type=click.IntRange(min=2048), metavar="N", help="The models' context.  [default: known]"
    ),
    click.option(
        "--model-timeout", type=click.FloatRange(min=1), default=600.0, metavar="SECONDS", help="Of one call."
    ),
    click.option("--agent-command", metavar="COMMAND", help="For command: an outside coding agent."),
    click.option(
        "--agent-timeout", type=click.FloatRange(min=1), default=1200.0, metavar="SECONDS", help="Of one proposal."
    ),
)


def researcher_options(function: F) -> F:
    """Add the researchers' options to a command, which gets them as one argument, `options`."""

    @functools.wraps(function)
    def with_options(*args: Any, **kwargs: Any) -> Any:
        taken = {one.name: kwargs.pop(one.name) for one in fields(ResearcherOptions)}
        return function(*args, options=ResearcherOptions(**taken), **kwargs)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return cast("F", with_options)


def without_models(options: ResearcherOptions) -> ResearcherOptions:
    """For a researcher that calls none: a model that a file or a variable names is not meant for it."""
    return replace(options, model=(), max_usd=None)


def check_researcher(name: str, options: ResearcherOptions) -> None:
    """Before anything is started. Raises `UsageError` or `PrerequisiteError` for what cannot work."""
    from autoresearch.core.errors import PrerequisiteError, UsageError

    uses_models = name in WITH_MODELS
    if uses_models and not options.model:
        fix = (
            "--model anthropic/..., openai/... or ollama/... (litellm's names), or --researcher tuner, which needs none"
        )
        raise UsageError(f"--researcher {name} needs a --model.", fix=fix)
    if not uses_models and (options.model or options.max_usd is not None):
        raise UsageError(
            f"--model and --max-usd are for language models, and the researcher {name} calls none.",
            fix="--researcher llm or --researcher mix",
        )
    if name == "command":
        make_researcher(name, options)
    if uses_models:
        provider = _provider(options)
        unknown = [model for model in options.model if options.max_usd is not None and provider.price(model) is None]
        if unknown:
            fix = f"--price {unknown[0]}=IN/OUT, in dollars per million tokens, or leave --max-usd away"
            raise UsageError(f"--max-usd cannot be kept: the price of {unknown[0]} is not known.", fix=fix)
        for model in options.model:
            missing = provider.missing_keys(model)
            if missing:
                raise PrerequisiteError(f"{model} needs {', '.join(missing)} in the environment.", fix="export it")


def make_researcher(
    name: str,
    options: ResearcherOptions | None = None,
    *,
    run_folder: Path | None = None,
    workspace: Path | None = None,
) -> Researcher:
    """A researcher; what it writes down goes into the run's folder, and its own ideas are read from the workspace."""
    options = options or ResearcherOptions()
    if name == "command":
        from autoresearch.agent.command import agent_researcher

        return agent_researcher(options.agent_command, options.agent_timeout)
    if name == "llm":
        return _llm(options, run_folder, workspace)
    from autoresearch.agent.tuner.researcher import Tuner

    if name == "mix":
        from autoresearch.agent.mix import Mix

        return Mix([Tuner(), _llm(options, run_folder, workspace)])
    return Tuner()


def _llm(options: ResearcherOptions, run_folder: Path | None, workspace: Path | None) -> LLM:
    from autoresearch.agent.llm.ideas import load_ideas
    from autoresearch.agent.llm.researcher import LLM
    from autoresearch.agent.llm.memory import Digest
    from autoresearch.agent.llm.models import Models
    from autoresearch.agent.llm.spending import Spending

    spending = Spending(run_folder / CALLS if run_folder else None, options.max_usd)
    digest = Digest(run_folder / DIGEST if run_folder else None)
    load_ideas(workspace)  # a malformed file is said now, not at the first proposal
    models = Models(options.model, _provider(options), spending)
    return LLM(models, digest=digest, ideas=functools.partial(load_ideas, workspace))


def _provider(options: ResearcherOptions) -> Any:
    from autoresearch.agent.llm.providers import Price, Provider

    prices = {model: Price(usd_in / 1e6, usd_out / 1e6) for model, usd_in, usd_out in options.price}
    return Provider(
        api_base=options.api_base,
        timeout_seconds=options.model_timeout,
        prices=prices,
        context_tokens=options.context_tokens,
    )


def make_judge(name: str, *, preset: str, calibrate: int) -> Judge:
    """A judge. Only `racing` calibrates, and takes its prior from the preset."""
    module, _, attribute = JUDGES[name].partition(":")
    made = getattr(importlib.import_module(module), attribute)
    return cast("Judge", made(preset=preset, calibrate=calibrate) if name == "racing" else made())
