"""The options of `ar loop` in groups, and the judges and researchers that they name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoresearch.core.cli.params import (
    LONGEST,
    CorpusType,
    GivenPath,
    Number,
    Price,
    Slots,
    Vocabularies,
    Whole,
    is_typed,
    option,
)
from autoresearch.core.errors import PrerequisiteError, UsageError
from autoresearch.core.judge.options import JUDGES, JudgeOptions

if TYPE_CHECKING:
    from autoresearch.agent.llm.providers import Provider
    from autoresearch.agent.llm.researcher import LLM
    from autoresearch.core.proposal import Researcher

CALLS, DIGEST, LITERATURE, AGENT_OUTPUT = "calls.jsonl", "digest.md", "literature", "agent"
"""In the run's folder: the account of calls to models, the digest of what was learned, fetched literature, and what a
coding agent has said."""


DEFAULT_JUDGE = "racing"


@dataclass(frozen=True)
class RunOverrides:
    """Options about the run itself. None takes the run's own value, for a new run the default or the preset's."""

    judge: str | None = option(
        type=click.Choice(JUDGES),
        help="Judge of the experiments: racing repeats promising trials and accounts for noise, greedy believes one "
        f"trial.  [default: {DEFAULT_JUDGE}]",
    )
    calibrate: int | None = option(
        type=Whole(min=1),
        metavar="N",
        help="Trials of the baseline before the first experiment, to learn the noise (racing only).  "
        f"[default: {JudgeOptions.calibrate}]",
    )
    stop_early: str | None = option(
        type=click.Choice(("on", "off")),
        help="End a trial early when its training loss says that it will not be kept, or when it diverges or stalls "
        f"(racing only).  [default: {JudgeOptions.stop_early}]",
    )
    stacks: str | None = option(
        type=click.Choice(("on", "off")),
        help="With several trials at once, combine changes that looked better and judge them as one candidate "
        f"(racing only).  [default: {JudgeOptions.stacks}]",
    )
    screen_seconds: float | None = option(
        type=Number(min=0, largest=LONGEST),
        metavar="SECONDS",
        help="Train each change for this many seconds first, and rule it out if it is clearly worse than the best "
        "file in the same time; a quarter of the budget is a good value, 0 turns it off (racing only).  "
        "[default: 0]",
    )
    screen_on: str | None = option(
        metavar="KIND",
        help="Try each change first on devices with these words in their names, and rule it out if it is clearly "
        "worse than the best file there; needs --fleet ray.  [default: none]",
    )
    confirm_on: str | None = option(
        metavar="KIND",
        help="Decide on devices with these words in their names; --device under another name, to go with "
        "--screen-on.  [default: the most frequent kind]",
    )
    budget: float | None = option(
        type=Number(min=0, min_open=True, largest=LONGEST),
        metavar="SECONDS",
        help="Training seconds per trial.  [default: the preset's]",
    )
    corpus: str | None = option(
        type=CorpusType(), metavar="NAME|PATH", help="Text to train on.  [default: the preset's corpus]"
    )
    vocab: tuple[int, ...] | None = option(
        type=Vocabularies(),
        metavar="V,...",
        help="Vocabulary sizes that a train file may choose from.  [default: the preset's]",
    )
    seed: int | None = option(
        type=Whole(min=0), metavar="N", help="First seed for models and the order of the data.  [default: 0]"
    )


@dataclass(frozen=True)
class ResearcherOptions:
    """Options of the researchers."""

    model: tuple[str, ...] = option(
        multiple=True,
        metavar="NAME",
        help="Language model for the researchers llm and mix, by litellm's name; may be given several times.",
    )
    api_base: str | None = option(metavar="URL", help="Address of your own server for the language models.")
    max_usd: float | None = option(
        type=Number(min=0, min_open=True),
        metavar="D",
        help="Spending limit for the run in dollars, in-flight calls included.",
    )
    price: tuple[tuple[str, float, float, float | None], ...] = option(
        type=Price(),
        multiple=True,
        metavar="MODEL=IN/OUT[/CACHED]",
        help="Price of a language model in dollars per million tokens: input, output and, if you like, input from "
        "the provider's cache.",
    )
    context_tokens: int | None = option(
        type=Whole(min=2048),
        metavar="N",
        help="Context length of the language models in tokens.  [default: litellm's figure]",
    )
    reasoning_effort: str | None = option(
        type=click.Choice(("minimal", "low", "medium", "high")),
        help="Effort that the language models spend on reasoning before they answer.  [default: the provider's]",
    )
    temperature: float | None = option(
        type=Number(min=0, max=2),
        metavar="T",
        help="Sampling temperature of the language models.  [default: the provider's]",
    )
    cache: str = option(
        default="auto",
        type=click.Choice(("auto", "5m", "1h", "off")),
        help="Marks that keep a prompt in the provider's cache for 5 minutes or an hour: auto sends them only to "
        "models that cache nothing without them, for an hour if trials are long.",
    )
    literature: Path | None = option(
        type=GivenPath(exists=True),
        metavar="FOLDER|URL-LIST",
        help="Texts for the language models to draw on: a folder of text files, or a file with one web address per "
        "line.",
    )
    model_timeout: float = option(
        default=600.0,
        type=Number(min=1, largest=LONGEST),
        metavar="SECONDS",
        help="Time limit for one call to a language model.",
    )
    agent_command: str | None = option(
        metavar="COMMAND", help="Command that starts an outside coding agent, for the researcher command."
    )
    agent_timeout: float = option(
        default=1200.0,
        type=Number(min=1, largest=LONGEST),
        metavar="SECONDS",
        help="Time limit for one proposal of the outside coding agent.",
    )
    agent_env: tuple[str, ...] = option(
        multiple=True,
        metavar="NAME",
        help="Environment variable that the outside coding agent may see, such as its provider's key, in addition "
        "to the usual ones; may be given several times.",
    )


@dataclass(frozen=True)
class FleetOptions:
    """Options about the devices that trials run on."""

    slots: int | str | None = option(
        type=Slots(),
        metavar="N|auto",
        help="Number of trials at once on this machine: one per GPU, or each on a share of the CPU's cores.  "
        "[default: one trial at a time]",
    )
    fleet: str = option(
        default="local",
        type=click.Choice(("local", "ray")),
        help="Devices to run trials on: this machine's, or every suitable one of a Ray cluster.",
    )
    address: str | None = option(
        metavar="HOST:PORT",
        help="Address of the Ray cluster.  [default: this machine's cluster, or a new one of this machine alone]",
    )
    device: str | None = option(
        metavar="WORDS",
        help="Use only the Ray cluster's devices with these words in their names.  [default: the most frequent kind]",
    )
    priority: float | None = option(
        type=float,
        metavar="N",
        help="Weight of this run if several share a Ray cluster: 3 gets three times the devices of 1.  [default: 1]",
    )


# Researchers: the name on the command line, and what makes the researcher from its options.


def _tuner(_options: ResearcherOptions, _run_folder: Path | None, _workspace: Path | None) -> Researcher:
    from autoresearch.agent.tuner.researcher import Tuner

    return Tuner()


def _llm(options: ResearcherOptions, run_folder: Path | None, workspace: Path | None) -> LLM:
    from autoresearch.agent.llm.ideas import load_ideas, numbered_ideas
    from autoresearch.agent.llm.literature import Literature
    from autoresearch.agent.llm.memory import Digest
    from autoresearch.agent.llm.models import Models
    from autoresearch.agent.llm.researcher import LLM
    from autoresearch.agent.llm.spending import Spending

    spending = Spending(run_folder / CALLS if run_folder else None, options.max_usd)
    digest = Digest(run_folder / DIGEST if run_folder else None)
    load_ideas(workspace)  # so that a malformed file is reported now, not at the first proposal
    models = Models(options.model, _provider(options), spending)
    literature = Literature(options.literature, run_folder / LITERATURE if run_folder else None)
    return LLM(models, digest=digest, ideas=functools.partial(numbered_ideas, workspace), literature=literature)


def _provider(options: ResearcherOptions) -> Provider:
    from autoresearch.agent.llm.providers import Price, Provider

    prices = {
        model: Price(usd_in / 1e6, usd_out / 1e6, None if cached is None else cached / 1e6)
        for model, usd_in, usd_out, cached in options.price
    }
    return Provider(
        api_base=options.api_base,
        timeout_seconds=options.model_timeout,
        prices=prices,
        context_tokens=options.context_tokens,
        reasoning_effort=options.reasoning_effort,
        temperature=options.temperature,
        cache=options.cache,  # type: ignore[arg-type]  # click has checked it
    )


def _command(options: ResearcherOptions, run_folder: Path | None, _workspace: Path | None) -> Researcher:
    from autoresearch.agent.command import agent_researcher
    from autoresearch.core.environment import allowed_environment, check_names

    check_names("--agent-env", options.agent_env)
    return agent_researcher(
        options.agent_command,
        options.agent_timeout,
        environment=allowed_environment(options.agent_env),
        output_folder=run_folder / AGENT_OUTPUT if run_folder else None,
    )


def _submit(_options: ResearcherOptions, _run_folder: Path | None, _workspace: Path | None) -> Researcher:
    from autoresearch.core.run.submissions import Outside

    return Outside()


def _mix(options: ResearcherOptions, run_folder: Path | None, workspace: Path | None) -> Researcher:
    from autoresearch.agent.mix import Mix

    return Mix([_tuner(options, run_folder, workspace), _llm(options, run_folder, workspace)])


RESEARCHERS: Mapping[str, Callable[[ResearcherOptions, Path | None, Path | None], Researcher]] = {
    "tuner": _tuner,
    "llm": _llm,
    "command": _command,
    "mix": _mix,
    "submit": _submit,
}
WITH_MODELS = ("llm", "mix")
"""Researchers that call language models."""


def make_researcher(
    name: str,
    options: ResearcherOptions | None = None,
    *,
    run_folder: Path | None = None,
    workspace: Path | None = None,
) -> Researcher:
    """Make a researcher. It writes its files into the run's folder and reads `ideas.toml` from the workspace."""
    return RESEARCHERS[name](options or ResearcherOptions(), run_folder, workspace)


def without_models(options: ResearcherOptions) -> ResearcherOptions:
    """Drop the models' options, which a file or a variable may have set, for a researcher that calls none."""
    return replace(options, model=(), max_usd=None, literature=None)


def assumptions(name: str, options: ResearcherOptions) -> tuple[str, ...]:
    """Say what is assumed of the language models because nobody has said it; nothing for other researchers."""
    if name not in WITH_MODELS:
        return ()
    from autoresearch.agent.llm.providers import DEFAULT_CONTEXT_TOKENS

    provider = _provider(options)
    return tuple(
        f"the context length of {model} is not known: {DEFAULT_CONTEXT_TOKENS:,} tokens are assumed, and prompts are "
        "cut to fit, diffs and older experiments first; say --context-tokens N if it is longer"
        for model in options.model
        if provider.assumes_context(model)
    )


FOR_AGENTS = ("agent_command", "agent_timeout", "agent_env")
"""Options of an outside coding agent; the other ones of `ResearcherOptions` are for language models."""


def refuse_unread(ctx: click.Context, researcher: str | None) -> None:
    """Refuse options on the command line that this researcher, or none, does not read. Raises `UsageError`."""
    unread = []
    for name in (field.name for field in fields(ResearcherOptions)):
        reads = researcher == "command" if name in FOR_AGENTS else researcher in WITH_MODELS
        if not reads and is_typed(ctx, name):
            unread.append(name)
    if not unread:
        return
    flag, agents = f"--{unread[0].replace('_', '-')}", unread[0] in FOR_AGENTS
    reader = "an outside coding agent" if agents else "language models"
    who = f"the researcher {researcher} asks none" if researcher else "no --researcher is named"
    offered: Iterable[str] = next(one.type.choices for one in ctx.command.params if one.name == "researcher")  # type: ignore[attr-defined]
    meant = [name for name in offered if (name == "command" if agents else name in WITH_MODELS)]
    fix = f"{' or '.join(f'--researcher {name}' for name in meant)}, or leave {flag} out"
    raise UsageError(f"{flag} is for {reader}, and {who}.", fix=fix)


def refuse_unjudged(judge: str) -> None:
    """Refuse options on the command line of this call that the judge does not read. Raises `UsageError`."""
    ctx = click.get_current_context(silent=True)
    if ctx is None or judge == DEFAULT_JUDGE:
        return
    unread = [f"--{name.replace('_', '-')}" for name in JudgeOptions.settings() if is_typed(ctx, name)]
    if unread:
        message = f"{unread[0]} is an option of the {DEFAULT_JUDGE} judge, and the judge is {judge}."
        raise UsageError(message, fix="leave one of the two out")


def check_researcher(
    name: str, options: ResearcherOptions, otherwise: str = "--researcher tuner, which needs none"
) -> None:
    """Check the options before anything is started. Raises `UsageError` or `PrerequisiteError`.

    `otherwise` says what to do where no model is at hand.
    """
    uses_models = name in WITH_MODELS
    if uses_models and not options.model:
        fix = f"--model anthropic/..., openai/... or ollama/... (litellm's names), or {otherwise}"
        raise UsageError(f"--researcher {name} needs a --model.", fix=fix)
    if not uses_models and (options.model or options.max_usd is not None or options.literature is not None):
        raise UsageError(
            f"--model, --max-usd and --literature are for language models, and the researcher {name} calls none.",
            fix="--researcher llm or --researcher mix",
        )
    if name == "command":
        make_researcher(name, options)
    if uses_models:
        from autoresearch.agent.llm.literature import Literature

        Literature(options.literature)  # so that a mistake in it is reported now
        provider = _provider(options)
        unknown = [model for model in options.model if options.max_usd is not None and provider.price(model) is None]
        if unknown:
            fix = f"--price {unknown[0]}=IN/OUT, in dollars per million tokens, or leave --max-usd away"
            raise UsageError(f"--max-usd cannot be kept: the price of {unknown[0]} is not known.", fix=fix)
        for model in options.model:
            why = provider.unknown(model)
            if why is not None:
                fix = "--model PROVIDER/NAME, as litellm's documentation has it"
                raise UsageError(f"--model {model}: {why}.", fix=fix)
            missing = provider.missing_keys(model)
            if missing:
                raise PrerequisiteError(f"{model} needs {', '.join(missing)} in the environment.", fix="export it")
