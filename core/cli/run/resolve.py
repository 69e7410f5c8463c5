"""Turn the options of `ar loop` into the run and its configuration, its devices and its peer runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autoresearch.core.cli.context import REQUIRED_ISOLATION, Settings
from autoresearch.core.cli.params import is_typed
from autoresearch.core.cli.run.options import DEFAULT_JUDGE, FleetOptions, RunOverrides, refuse_unjudged
from autoresearch.core.errors import LedgerError, UsageError
from autoresearch.core.home import expand_home

if TYPE_CHECKING:
    from autoresearch.backends.contract import Device
    from autoresearch.core.cli.context import Backend
    from autoresearch.core.config import Preset, RunConfig
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.findings.peers import PeerRuns
    from autoresearch.core.fleet.cluster import Placement, Survey
    from autoresearch.core.fleet.cluster_executor import FleetExecutor
    from autoresearch.core.fleet.executor import Executor
    from autoresearch.core.fleet.local import LocalExecutor
    from autoresearch.core.fleet.membership import Member
    from autoresearch.core.fleet.ray import RayCluster
    from autoresearch.core.run.rerun_policy import DeviceWatch
    from autoresearch.core.run.scheduler import ScreeningDevices
    from autoresearch.core.store.rows import RunRow

FindDevice = Callable[[str, str], "Device"]
"""Finds the device for a backend's name and the run's last machine, where trials run on a fleet."""


@dataclass(frozen=True)
class Choice:
    """The run to start or to continue, with its backend, device and preset."""

    tag: str
    stored: RunRow | None
    """The run's row in its ledger; None for a new run."""
    settings: Settings
    """The shared options, with the run's own backend and preset in place of `auto`."""
    backend: Backend
    device: Device
    preset: Preset


def choose_run(
    settings: Settings,
    tag: str | None,
    overrides: RunOverrides,
    *,
    allow_dirty: bool,
    committed: bool = False,
    find_device: FindDevice | None = None,
) -> tuple[str, RunConfig, Preset, Prepared, Device]:
    """Choose the run to start or to continue and report the choice; return tag, configuration, preset, corpus, device.

    With `committed` a new run starts from HEAD's train file. Repairs ledgers that a crash has damaged.
    """
    from autoresearch.core.config import ANOTHER_RUN, RUN_FOLDERS, runs_dir
    from autoresearch.core.run.run import committed_source, starting_source
    from autoresearch.core.store.git import Repository, check_tag
    from autoresearch.core.store.restore import mend

    runs = runs_dir(settings.workspace)
    for folder in runs.glob(RUN_FOLDERS) if tag is None else [runs / check_tag(tag)]:
        try:
            mend(folder, settings.say)
        except LedgerError as error:
            if tag is not None:
                raise
            settings.say(f"skipping the run {folder.name}: {error}")  # nobody asked for this one
    choice = pick_run(settings, tag, find_device)
    tag, backend, preset = choice.tag, choice.backend, choice.preset
    # Checked here, before minutes are spent on preparing a text.
    check_overrides(settings, overrides, choice.stored, otherwise=ANOTHER_RUN)
    if choice.stored is not None:
        settings.say(f"continuing the run {tag} (another --tag starts a new one)")
        if allow_dirty and choice.stored.incumbent is not None:
            settings.say("--allow-dirty changes nothing: the run has its baseline, whatever the train file holds now")
    else:
        where = device_words(choice.device)
        settings.say(f"starting the run {tag}: {backend.name} ({backend.why}), preset {preset.name}, {where}")
        # Checked here, before minutes are spent on preparing text.
        repository = Repository.open(settings.workspace)
        if committed:
            committed_source(repository, backend.name, preset)
        else:
            starting_source(repository, backend.name, preset, allow_dirty=allow_dirty)
    config, prepared = configure(choice.settings, backend.name, preset, choice.device, overrides, choice.stored)
    return tag, config, preset, prepared, choice.device


def pick_run(settings: Settings, tag: str | None, find_device: FindDevice | None = None) -> Choice:
    """Choose the run of that tag; without a tag the unfinished run of this backend and preset, or a new one.

    `find_device` names the device where trials run on a fleet. Writes nothing.
    """
    from autoresearch.core.cli.context import resolve_backend, resolve_preset
    from autoresearch.core.cli.runs import check_name, fresh_tag, named_run, run_rows, unfinished_run
    from autoresearch.core.store.git import Repository
    from autoresearch.core.trial.device import probe_device

    check_name(settings.workspace, tag)
    stored = named_run(settings.workspace, tag) if tag is not None else None
    Repository.open(settings.workspace)  # checked before seconds are spent on devices and data
    if stored is not None:
        settings = _as_stored(settings, stored)
    backend = resolve_backend(settings, elsewhere=find_device is not None)
    machine = str(stored.config.get("machine", "")) if stored is not None else ""
    device = probe_device(backend.name) if find_device is None else find_device(backend.name, machine)
    if settings.preset == "auto":
        settings = replace(settings, preset=device.tier)
    preset = resolve_preset(settings, backend)
    if tag is None:
        stored = unfinished_run(run_rows(settings.workspace, settings.say), backend.name, preset.name)
        tag = stored.tag if stored is not None else fresh_tag(settings.workspace, backend.name)
    return Choice(tag, stored, settings, backend, device, preset)


def _as_stored(settings: Settings, stored: RunRow) -> Settings:
    """Replace `auto` by the backend and preset that the run was started with."""
    backend = stored.config["backend"] if settings.backend == "auto" else settings.backend
    preset = stored.config["preset"] if settings.preset == "auto" else settings.preset
    return replace(settings, backend=backend, preset=preset)


def configure(
    settings: Settings, backend: str, preset: Preset, device: Device, overrides: RunOverrides, stored: RunRow | None
) -> tuple[RunConfig, Prepared]:
    """Make the run's configuration from the options, else from the values it was started with, else from the preset."""
    from autoresearch import __version__
    from autoresearch.core.cli.context import ensure_prepared
    from autoresearch.core.config import RunConfig
    from autoresearch.core.data.manifest import data_sha256
    from autoresearch.core.judge.options import UNRECORDED, JudgeOptions

    was = dict(stored.config) if stored is not None else {}
    judge = overrides.judge or was.get("judge", DEFAULT_JUDGE)
    options = JudgeOptions.choose(preset.name, vars(overrides), was)
    budget = overrides.budget or was.get("train_seconds", preset.train_seconds)
    asked = "screen-seconds" if overrides.screen_seconds else "screen-on" if overrides.screen_on else ""
    _check_screen(options.screen_seconds, budget, judge, asked=asked)
    corpus = absolute(overrides.corpus) if overrides.corpus else was.get("corpus", absolute(preset.data.corpus))
    vocabularies = overrides.vocab or tuple(was.get("vocabularies", preset.data.vocabularies))
    prepared = _prepared_for(was, corpus, vocabularies)
    if prepared is None:
        prepared = ensure_prepared(settings, preset, corpus=corpus, vocabularies=vocabularies)
    config = RunConfig(
        backend=backend,
        preset=preset.name,
        corpus=corpus,
        prepared=str(prepared.folder),
        prepared_sha256=data_sha256(prepared, vocabularies, preset.data.eval_seq_len),
        vocabularies=vocabularies,
        eval_seq_len=preset.data.eval_seq_len,
        score_rows=preset.score_rows,
        train_seconds=budget,
        startup_seconds=was.get("startup_seconds", preset.startup_seconds),
        weights_limit_mb={**UNRECORDED, **was}["weights_limit_mb"] if was else preset.weights_limit_mb,
        seed=was.get("seed", 0) if overrides.seed is None else overrides.seed,
        judge=judge,
        judge_options=options,
        device=device.name,
        machine=device.description(),
        device_kind=device.kind,
        ar_version=__version__,
    )
    return config, prepared


def check_overrides(settings: Settings, overrides: RunOverrides, run: RunRow | None, otherwise: str) -> None:
    """Check that the options fit each other and the run, whose settings were chosen when it was started.

    `settings` are those that the person gave, `run` is None for a new one, and `otherwise` says what to do for another
    run. Raises `UsageError`.
    """
    from autoresearch.core.data.corpora import check_corpus

    if run is not None:
        _check_stored(settings, overrides, run, otherwise)
    if overrides.corpus is not None:
        check_corpus(overrides.corpus)
    refuse_unjudged(overrides.judge or (run.config.get("judge") if run is not None else None) or DEFAULT_JUDGE)


def _check_stored(settings: Settings, overrides: RunOverrides, run: RunRow, otherwise: str) -> None:
    from autoresearch.core.config import OPTION_OF, changed_setting

    names = {option: name for name, option in OPTION_OF.items()}
    given = {names.get(name, name): value for name, value in vars(overrides).items() if value is not None}
    given |= {name: value for name in ("backend", "preset") if (value := getattr(settings, name)) != "auto"}
    for name, value in given.items():
        wanted = absolute(value) if name == "corpus" else list(value) if isinstance(value, tuple) else value
        if name in run.config and run.config[name] != wanted:
            raise changed_setting(run.tag, name, run.config[name], wanted, otherwise)


def _check_screen(seconds: float, budget: float, judge: str, *, asked: str) -> None:
    """Refuse short trials that are not short, and those of a judge that has none. Raises `UsageError`."""
    if seconds >= budget:
        raise UsageError(
            f"--screen-seconds {seconds:g} is not shorter than a trial's budget of {budget:g} s.",
            fix=f"--screen-seconds {budget / 4:g}, a quarter of it, or 0 for none",
        )
    if asked and judge != "racing":
        raise UsageError(
            f"--{asked} is an option of the racing judge, and the judge is {judge}.",
            fix="leave one of the two out",
        )


def absolute(corpus: str) -> str:
    """Make a corpus's path absolute, so that a run can be continued from another folder. A name stays as it is."""
    path = expand_home(corpus)
    return str(path.resolve()) if path.exists() else corpus


def _prepared_for(was: Mapping[str, Any], corpus: str, vocabularies: tuple[int, ...]) -> Prepared | None:
    """Open the prepared folder that the run has used so far, even if the text has changed; None if it must be made."""
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.errors import DataError

    if not was or (corpus, vocabularies) != (was["corpus"], tuple(was["vocabularies"])):
        return None
    try:
        return Prepared.open(Path(was["prepared"]))
    except DataError:
        return None  # it was deleted; preparing the same text makes the same folder again


class Devices:
    """The devices that `FleetOptions` name, on this machine or on a Ray cluster."""

    def __init__(self, options: FleetOptions, say: Callable[[str], None]) -> None:
        """Connect to the cluster if the options name one. Raises `UsageError` for options that exclude each other."""
        self._options, self._say = options, say
        self._cluster: RayCluster | None = None
        self._found: Survey = {}
        check_fleet(options)
        if options.fleet == "local":
            return
        from autoresearch.core.fleet.ray import RayCluster

        self._cluster = RayCluster(options.address)
        if self._cluster.started:
            say("no Ray cluster found: starting one on this machine alone, which ends with this loop")

    @property
    def find_device(self) -> Callable[[str, str], Device] | None:
        """The search for the cluster's device; None when trials run on this machine."""
        return None if self._cluster is None else self._find

    def _find(self, backend: str, before: str) -> Device:
        from autoresearch.core.fleet.cluster import choose_device, survey

        assert self._cluster is not None
        self._found = survey(self._cluster, backend)
        return choose_device(self._found, self._placement(), before=before)

    def screening(
        self, words: str, member: Member, backend: str, machine: str, prepared: Prepared
    ) -> ScreeningDevices | None:
        """Make the executor for short trials on the kind of device that `words` name; None for no words.

        `machine` is the run's own. Raises `UsageError` where they name the same kind or there is no cluster, and
        `PrerequisiteError` where no node has such a device.
        """
        if not words:
            return None
        from autoresearch.core.run.scheduler import ScreeningDevices

        if self._cluster is None:
            raise UsageError(
                f"this run tries its changes on {words!r} first (--screen-on), on a Ray cluster.", fix="add --fleet ray"
            )
        found = screening_device(self._found, words, machine)
        folder = None if member.folder is None else member.folder / "screens"
        beside = replace(member, tag=f"{member.tag} (screens)", folder=folder)
        name = found.description()
        return ScreeningDevices(self._fleet(beside, backend, name, prepared, disconnects=False), name, found.kind)

    def _placement(self) -> Placement:
        """Return the options that are rules for placing trials: those that `Placement` has a field for."""
        from autoresearch.core.fleet.cluster import Placement

        return Placement(**{field.name: getattr(self._options, field.name) for field in fields(Placement)})

    def executor(self, member: Member, backend: str, machine: str, kind: str, prepared: Prepared) -> Executor:
        """Make the executor for a run's trials. `machine` and `kind` are the device's, `member` how a fleet knows it.

        The priority among the options goes before the member's.
        """
        if self._cluster is None:
            return local_executor(self._options.slots, kind, self._say)
        return self._fleet(member, backend, machine, prepared)

    def _fleet(
        self, member: Member, backend: str, machine: str, prepared: Prepared, *, disconnects: bool = True
    ) -> FleetExecutor:
        """Make an executor on the cluster's devices of that kind."""
        from autoresearch.core.fleet.cluster import NodeRequirements
        from autoresearch.core.fleet.cluster_executor import FleetExecutor
        from autoresearch.core.fleet.shipping import describe_corpus
        from autoresearch.core.store.integrity import code_sha256

        assert self._cluster is not None
        required = click.get_current_context().meta.get(REQUIRED_ISOLATION, "process")
        wanted = NodeRequirements(backend, machine, code_sha256(backend), required, self._placement())
        member = replace(member, priority=self._options.priority or member.priority)
        corpus = describe_corpus(prepared.folder)
        executor = FleetExecutor(self._cluster, wanted, corpus, member=member, say=self._say, disconnects=disconnects)
        plural, shared = "s" if executor.slots > 1 else "", ""
        if executor.others:
            shared = f", shared with {', '.join(executor.others)} (`ar fleet` shows who uses what)"
        self._say(f"{executor.slots} trial{plural} at a time on the fleet: {machine}{shared}")
        return executor


def check_fleet(options: FleetOptions) -> None:
    """Check that the options do not exclude each other. Connects to nothing. Raises `UsageError`.

    What a file or a variable has set for the other kind of devices is left alone: nothing reads it.
    """
    ctx = click.get_current_context(silent=True)
    given = {name for name in ("address", "device", "priority", "slots") if ctx is None or is_typed(ctx, name)}
    if options.fleet == "local":
        _refuse_without_cluster(
            {name: getattr(options, name) for name in ("address", "device", "priority") if name in given}
        )
        return
    if options.priority is not None and not 0 < options.priority < math.inf:
        raise UsageError(f"--priority {options.priority:g} is not a positive number.", fix="--priority 2, for example")
    if options.slots is not None and "slots" in given:
        raise UsageError(
            "--slots is an option for this machine.", fix="leave it out: all devices of a Ray cluster are used"
        )


def _refuse_without_cluster(given: Mapping[str, object]) -> None:
    """Refuse options, by name, that only a Ray cluster has; None was not given. Raises `UsageError`."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name} is an option for a Ray cluster.", fix="add --fleet ray, or leave it out")


def two_kinds(options: FleetOptions, overrides: RunOverrides) -> FleetOptions:
    """Return the options with the kind of device that `--confirm-on` names as the run's own.

    Raises `UsageError` where there is no cluster for two kinds, or `--device` names another one.
    """
    if options.fleet == "local":
        asked = {"screen-on": overrides.screen_on, "confirm-on": overrides.confirm_on}
        _refuse_without_cluster({name: words or None for name, words in asked.items()})
    if overrides.confirm_on is None:
        return options
    if options.device not in (None, overrides.confirm_on):
        raise UsageError("--device and --confirm-on name two kinds of device.", fix="leave one of them out")
    return replace(options, device=overrides.confirm_on)


def screening_device(found: Survey, words: str, machine: str) -> Device:
    """Return the device that `words` name beside the run's own `machine`, which is a `Device.description`.

    Raises `UsageError` where it is the run's own, and `PrerequisiteError` where no node has one.
    """
    from autoresearch.core.fleet.cluster import Placement, choose_device

    kinds = sorted({node.device.description() for node in found.values() if node.device} - {machine})
    # Words that fit both kinds mean the other one.
    others = {name: node for name, node in found.items() if not node.device or node.device.description() != machine}
    if not any(node.device and words.lower() in node.device.description().lower() for node in others.values()):
        if words.lower() in machine.lower():
            raise UsageError(
                f"--screen-on {words!r} names {machine}, on which the run decides.",
                fix=f"name another kind: {'; '.join(kinds)}"
                if kinds
                else "the cluster has no other kind; leave it out",
            )
        return choose_device(found, Placement(words))
    return choose_device(others, Placement(words))


def local_executor(slots: int | str | None, kind: str, say: Callable[[str], None]) -> LocalExecutor:
    """Lock slots of this machine against other loops, say which, and make an executor on them.

    `kind` is the device's. Raises `UsageError` when the machine has fewer, `PrerequisiteError` when they are in use.
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
        say("trials that share a CPU slow each other down; do not compare them with trials that had it to themselves")
    return LocalExecutor(claim.slots, claim)


_SHARED = " (1 of "
"""Mark in a machine's name before the number of slots that share its CPU."""


def device_words(device: Device) -> str:
    """Name the device for a person. PyTorch on a CPU is said to be that: it may come as a surprise."""
    from autoresearch.core.trial.sandbox.host_paths import nvidia_cards

    if device.kind != "cpu" or not device.framework.startswith("torch"):
        busy = device.free_mb is not None and device.memory_mb is not None and device.free_mb < 0.9 * device.memory_mb
        return f"{device.name} ({device.free_mb / 1024:.0f} GiB free)" if busy and device.free_mb else device.name
    why = "the NVIDIA GPU of this machine cannot be used, see `ar doctor`" if nvidia_cards() else "no NVIDIA GPU found"
    return f"torch on the CPU {device.name} ({why})"


def machine_name(words: str, kind: str, executor: Executor) -> str:
    """Name the machine that scores depend on. A share of a CPU counts as another machine than the whole CPU."""
    from autoresearch.core.fleet.local import LocalExecutor

    count = executor.capacity()
    shared = isinstance(executor, LocalExecutor) and kind in ("cpu", "numpy") and count > 1
    return f"{words}{_SHARED}{count} slots)" if shared else words


def device_watch(config: RunConfig, executor: Executor) -> DeviceWatch:
    """Make the watch over this machine's devices: each trial's failure makes it look at the device that it ran on."""
    from autoresearch.core.fleet.local import LocalExecutor
    from autoresearch.core.run.rerun_policy import DeviceWatch

    machine = config.machine.partition(_SHARED)[0]
    return DeviceWatch(config.backend, machine, devices=executor if isinstance(executor, LocalExecutor) else None)


def peer_runs(workspace: Path, wanted: tuple[str, ...], say: Callable[[str], None]) -> PeerRuns | None:
    """Return the peer runs whose changes are offered to this one; None for --findings none. Raises `UsageError`."""
    from autoresearch.core.findings.peers import PeerRuns, folders_of

    if "none" not in wanted:
        return PeerRuns(folders_of(workspace, wanted), say)
    if len(wanted) > 1:
        raise UsageError("--findings none cannot be combined with others.", fix="leave one of them out")
    return None
