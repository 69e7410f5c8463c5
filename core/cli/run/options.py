"""On which devices the loop's trials run: this machine's, or a fleet's.

Researchers and judges by the names that people give, imported when they are used.

`--findings`: whose findings are offered to a run.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from autoresearch.core.errors import UsageError

if TYPE_CHECKING:
    from autoresearch.agent.llm.researcher import LLM
    from autoresearch.backends.contract import Device
    from autoresearch.core.config import RunConfig
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.findings.peers import PeerRuns
    from autoresearch.core.fleet.cluster import Survey
    from autoresearch.core.fleet.executor import Executor
    from autoresearch.core.fleet.local import LocalExecutor
    from autoresearch.core.fleet.ray import RayCluster
    from autoresearch.core.judge.decision import Judge
    from autoresearch.core.proposal import Researcher


class Slots(click.ParamType):
    """A number, or "auto" for as many as there are."""

    name = "slots"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Refuse what is neither."""
        if value == "auto" or (isinstance(value, int) and value > 0):
            return value
        if not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is neither a number nor auto", param, ctx)
        return int(value)


@dataclass(frozen=True)
class FleetOptions:
    """Where trials run."""

    slots: int | str | None
    fleet: str
    address: str | None
    device: str | None
    priority: float | None


def fleet_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `FleetOptions`, as its argument `where`."""

    @functools.wraps(function)
    def with_options(*args: Any, **kwargs: Any) -> Any:
        where = FleetOptions(*(kwargs.pop(name) for name in ("slots", "fleet", "address", "device", "priority")))
        return function(*args, where=where, **kwargs)

    options = [
        click.option(
            "--slots",
            type=Slots(),
            default=None,
            metavar="N|auto",
            help="Trials at once: one a GPU, or the CPU's cores shared out.  [default: one trial at a time]",
        ),
        click.option(
            "--fleet",
            type=click.Choice(("local", "ray")),
            default="local",
            help="Where trials run: on this machine, or on every fitting device of a Ray cluster.",
        ),
        click.option(
            "--address",
            metavar="HOST:PORT",
            help="The Ray cluster's.  [default: the one this machine is in, or a new one of it alone]",
        ),
        click.option(
            "--device",
            metavar="WORDS",
            help="Of a Ray cluster's devices those with these words in their names.  [default: the most frequent kind]",
        ),
        click.option(
            "--priority",
            type=float,
            metavar="N",
            help="Share of the fleet where several runs use it: one with 3 gets three times as much.  [default: 1]",
        ),
    ]
    for option in reversed(options):
        with_options = option(with_options)
    return with_options


class Where:
    """The devices of one invocation: first what they are, then an executor on them."""

    def __init__(self, options: FleetOptions, say: Callable[[str], None]) -> None:
        """Connect to the cluster, if it is one. Raises `UsageError` for options that do not go together."""
        self._options, self._say = options, say
        self._cluster: RayCluster | None = None
        self._found: Survey = {}
        if options.fleet == "local":
            for name in ("address", "device", "priority"):
                if getattr(options, name) is not None:
                    raise UsageError(f"--{name} is about a Ray cluster.", fix="add --fleet ray, or leave it out")
            return
        if options.priority is not None and not 0 < options.priority < math.inf:
            raise UsageError(f"--priority {options.priority:g}: it is a positive number.", fix="--priority 2, say")
        if options.slots is not None:
            raise UsageError("--slots is about this machine.", fix="leave it out: a Ray cluster's devices are all used")
        from autoresearch.core.fleet.ray import RayCluster

        self._cluster = RayCluster(options.address)
        if self._cluster.started:
            say("there is no Ray cluster here: one of this machine alone is started, and ends with this loop")

    @property
    def find_device(self) -> Callable[[str, str], Device] | None:
        """What to ask for the device; None to ask this machine."""
        return None if self._cluster is None else self._find

    def _find(self, backend: str, before: str) -> Device:
        from autoresearch.core.fleet.cluster import choose_device, survey

        assert self._cluster is not None
        self._found = survey(self._cluster, backend)
        return choose_device(self._found, like=self._options.device, before=before)

    def executor(self, tag: str, folder: Path, config: RunConfig, kind: str, prepared: Prepared) -> Executor:
        """The executor of the run of that tag, which is or will be recorded in `folder`."""
        if self._cluster is None:
            return local_executor(self._options.slots, kind, self._say)
        from autoresearch.core.cli.context import REQUIRED_ISOLATION
        from autoresearch.core.fleet.cluster import NodeRequirements
        from autoresearch.core.fleet.cluster_executor import FleetExecutor
        from autoresearch.core.fleet.membership import Member
        from autoresearch.core.fleet.shipping import describe_corpus
        from autoresearch.core.store.integrity import code_sha256

        required = click.get_current_context().meta.get(REQUIRED_ISOLATION, "process")
        wanted = NodeRequirements(config.backend, config.machine, code_sha256(config.backend), required)
        member = Member(tag, folder, self._options.priority or 1.0)
        executor = FleetExecutor(self._cluster, wanted, describe_corpus(prepared.folder), member=member, say=self._say)
        plural, shared = "s" if executor.slots > 1 else "", ""
        if executor.others:
            shared = f", shared with {', '.join(executor.others)} (`ar fleet` shows who uses what)"
        self._say(f"{executor.slots} trial{plural} at a time on the fleet: {config.machine}{shared}")
        return executor


def local_executor(slots: int | str | None, kind: str, say: Callable[[str], None]) -> LocalExecutor:
    """The devices of this machine that were asked for, locked against other loops, and said.

    `kind` is the device's. Raises `UsageError` when there are not so many, `PrerequisiteError` when others use them.
    """
    from autoresearch.core.config import data_dir
    from autoresearch.core.fleet.local import LocalExecutor
    from autoresearch.core.fleet.slots import Claim, find_slots

    shared_cpu = kind in ("cpu", "numpy")
    if slots is None and shared_cpu:
        return LocalExecutor()
    count = None if slots == "auto" else int(slots or 1)
    found = find_slots(kind, None if slots is None else count)
    claim = Claim(found, data_dir() / "devices", count)
    if len(claim.slots) > 1 or slots is not None:
        plural = "s" if len(claim.slots) > 1 else ""
        say(f"{len(claim.slots)} trial{plural} at a time: {'; '.join(slot.label for slot in claim.slots)}")
    if shared_cpu and len(claim.slots) > 1:
        say("trials on one CPU slow each other down, and compare with none that had the CPU for themselves")
    return LocalExecutor(claim.slots, claim)


_SHARED = " (1 of "


def machine_words(words: str, kind: str, executor: Executor) -> str:
    """What scores depend on beside the train file: a share of a CPU is another machine than all of it."""
    from autoresearch.core.fleet.local import LocalExecutor

    count = executor.capacity()
    shared = isinstance(executor, LocalExecutor) and kind in ("cpu", "numpy") and count > 1
    return f"{words}{_SHARED}{count} slots)" if shared else words


def whole_machine(words: str) -> str:
    """The machine of which `machine_words` may have named a share."""
    return words.partition(_SHARED)[0]


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
    from autoresearch.agent.llm.memory import Digest
    from autoresearch.agent.llm.models import Models
    from autoresearch.agent.llm.researcher import LLM
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


findings_option: Callable[[Any], Any] = click.option(
    "--findings",
    multiple=True,
    default=("auto",),
    show_default=True,
    metavar="auto|none|FOLDER",
    help="Try what runs on other devices have kept: this workspace's, none, or a run's folder; several may be given.",
)


def peer_runs(workspace: Path, wanted: tuple[str, ...], say: Callable[[str], None]) -> PeerRuns | None:
    """The runs that are looked at; None where nobody's findings are wanted. Raises `UsageError`."""
    from autoresearch.core.findings.peers import PeerRuns, folders_of

    if "none" not in wanted:
        return PeerRuns(folders_of(workspace, wanted), say)
    if len(wanted) > 1:
        raise UsageError("--findings none, and others beside it.", fix="leave either out")
    return None
