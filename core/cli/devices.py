"""On which devices the loop's trials run: this machine's, or a fleet's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.errors import UsageError

if TYPE_CHECKING:
    from autoresearch.backends.contract import Device
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.fleet.cluster import Survey
    from autoresearch.core.fleet.executor import Executor
    from autoresearch.core.fleet.local import LocalExecutor
    from autoresearch.core.fleet.ray import RayCluster
    from autoresearch.core.config import RunConfig


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
        from autoresearch.core.fleet.cluster import Wanted
        from autoresearch.core.fleet.membership import Member
        from autoresearch.core.fleet.remote import FleetExecutor
        from autoresearch.core.fleet.shipping import corpus_of
        from autoresearch.core.store.integrity import code_sha256

        required = click.get_current_context().meta.get(REQUIRED_ISOLATION, "process")
        wanted = Wanted(config.backend, config.machine, code_sha256(config.backend), required)
        member = Member(tag, folder, self._options.priority or 1.0)
        executor = FleetExecutor(self._cluster, wanted, corpus_of(prepared.folder), member=member, say=self._say)
        plural, shared = "s" if executor.places > 1 else "", ""
        if executor.others:
            shared = f", shared with {', '.join(executor.others)} (`ar fleet` shows who uses what)"
        self._say(f"{executor.places} trial{plural} at a time on the fleet: {config.machine}{shared}")
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
        say(f"{len(claim.slots)} trial{plural} at a time: {'; '.join(slot.words for slot in claim.slots)}")
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
