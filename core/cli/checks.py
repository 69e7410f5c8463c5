"""The checks of `ar doctor`. Each function returns results; none raises, none changes anything."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autoresearch.backends import names as backend_names
from autoresearch.backends.contract import Runtime
from autoresearch.core.cli.context import Backend, Settings, load_runtime, resolve_backend
from autoresearch.core.errors import ArError
from autoresearch.core.trial.host_memory import host_memory

if TYPE_CHECKING:
    from autoresearch.core.data.manifest import Prepared

GIB = 2**30
ROOM_FOR_RUNS = 64 * 2**20
"""Free bytes without which a run could not keep the weights of its first trials."""
KEYS = (
    "ANTHROPIC_API_KEY",
    "AZURE_API_KEY",
    "COHERE_API_KEY",
    "DEEPSEEK_API_KEY",
    "FIREWORKS_API_KEY",
    "GEMINI_API_KEY",
    "GROQ_API_KEY",
    "MISTRAL_API_KEY",
    "OPENAI_API_KEY",
    "OPENROUTER_API_KEY",
    "TOGETHERAI_API_KEY",
    "XAI_API_KEY",
)
"""Variables in which litellm looks for the keys of common providers. Only their names are ever shown."""


@dataclass(frozen=True)
class CheckResult:
    """The state of one prerequisite."""

    name: str
    status: Literal["pass", "warn", "fail"]
    """`fail`: nothing can run before it is fixed. `warn`: something is slower, weaker or unavailable."""
    detail: str
    fix: str | None = None


def check_all(settings: Settings) -> Iterator[CheckResult]:
    """Yield every result, the quick ones first."""
    yield check_python()
    yield check_git()
    yield from check_backends(settings)
    yield check_isolation()
    yield check_user()
    yield check_compiler()
    yield check_memory()
    yield check_disk(settings.data_folder)
    yield check_data(settings.data_folder)
    yield check_keys()
    yield check_workspace(settings)


def check_python() -> CheckResult:
    """Check the Python interpreter, which also runs every trial."""
    version = platform.python_version()
    if sys.version_info < (3, 10):  # noqa: UP036 - a broken install is what this command is for
        return CheckResult("python", "fail", version, "install Python 3.10 or newer")
    return CheckResult("python", "pass", f"{version} at {sys.executable}")


def check_git() -> CheckResult:
    """Check git, which keeps every experiment."""
    from autoresearch.core.store.git import run_git

    if shutil.which("git") is None:
        return CheckResult("git", "fail", "not on PATH", "install git")
    return CheckResult("git", "pass", run_git(Path.cwd(), "--version").removeprefix("git version "))


def check_backends(settings: Settings) -> Iterator[CheckResult]:
    """Check each backend's framework and device; the chosen one must work."""
    chosen = None
    try:
        backend = resolve_backend(settings)
        chosen = backend.name
        yield CheckResult("backend", "pass", f"{chosen}: {backend.why}")
    except ArError as error:
        yield CheckResult("backend", "fail", error.message, error.fix or "choose another --backend, or see below")
    if chosen is not None and settings.preset != "auto":
        yield check_preset(settings, backend)
    for name in backend_names():
        yield check_device(name, required=name == chosen)
        if name == "mlx" and sys.platform == "linux":
            yield check_openblas(load_runtime(name))
    if chosen is not None:
        from autoresearch.core.cli.checks_gpu import check_gpu

        yield from check_gpu(chosen, _train_file(settings, chosen))


def check_preset(settings: Settings, backend: Backend) -> CheckResult:
    """Check that the backend has the preset that was asked for by name."""
    from autoresearch.core.cli.context import resolve_preset

    try:
        return CheckResult("preset", "pass", f"{resolve_preset(settings, backend).name}: asked for")
    except ArError as error:
        return CheckResult("preset", "fail", error.message, error.fix)


def _train_file(settings: Settings, backend: str) -> str | None:
    """Return the text of the workspace's train file; None where there is none to read."""
    from autoresearch.core.config import train_file
    from autoresearch.core.textfile import read_text

    try:
        return read_text(train_file(settings.workspace, backend))
    except (OSError, UnicodeDecodeError):
        return None


def check_device(name: str, *, required: bool) -> CheckResult:
    """Check one backend's device, which its framework names in a child process."""
    from autoresearch.core.trial.device import probe_device

    missing = load_runtime(name).unavailable()
    if missing is not None:
        what, _, fix = missing.partition(": ")
        return CheckResult(f"backend {name}", "fail" if required else "warn", what, fix or None)
    try:
        device = probe_device(name)
    except ArError as error:
        return CheckResult(f"backend {name}", "fail" if required else "warn", error.message, error.fix)
    memory = f", {device.memory_mb / 1024:.0f} GiB" if device.memory_mb else ""
    detail = f"{device.framework} on {device.name} ({device.kind}{memory}, {device.precision}), preset {device.tier}"
    return CheckResult(f"backend {name}", "pass", detail)


def check_openblas(runtime: Runtime) -> CheckResult:
    """Check for OpenBLAS: the BLAS in MLX's wheel for Linux is about 40 times slower."""
    if runtime.unavailable() is not None or "LD_PRELOAD" in runtime.launch_environment():
        return CheckResult("openblas", "pass", runtime.launch_environment().get("LD_PRELOAD", "not needed without mlx"))
    return CheckResult("openblas", "warn", "not found: mlx will be slow on this CPU", "install libopenblas0-pthread")


def check_isolation() -> CheckResult:
    """Check how well a train file is isolated from the rest of the machine, and how to get the best level."""
    from autoresearch.core.trial.sandbox.host_paths import nvidia_cards
    from autoresearch.core.trial.sandbox.levels import PROTECTION, STRENGTH, levels
    from autoresearch.core.trial.sandbox.sealing import TRACES, why_unsealed
    from autoresearch.core.trial.sandbox.system_calls import why_unavailable

    found = levels()
    best = next(status.level for status in found if status.available)
    detail = f"{best}: {PROTECTION[best]}"
    # A level that belongs to another system is no advice.
    missing = {status.level: status.why_not for status in found if status.why_not and "only" not in status.why_not}
    for level, why_not in missing.items():
        if STRENGTH[level] > STRENGTH[best]:
            detail += f"; {level} would hide more ({why_not})"
    why_unfiltered = why_unavailable() if sys.platform == "linux" else None
    if why_unfiltered is not None:
        detail += f"; weaker than that here, because system calls are not filtered: {why_unfiltered}"
    why_open = why_unsealed(best) if sys.platform == "linux" and why_unfiltered is None else None
    if why_open is not None:
        detail += f"; {TRACES}: {why_open}"
    elif nvidia_cards():
        detail += f"; on a GPU {TRACES}"
    weak = why_unfiltered is not None or why_open is not None or STRENGTH[best] == 0
    return CheckResult(
        "isolation", "warn" if weak else "pass", detail, _bubblewrap_fix() if "bubblewrap" in missing else None
    )


def check_user() -> CheckResult:
    """Check that `ar` does not run as root: what the sandbox lets through, an ordinary user could not do either."""
    from autoresearch.core.trial.sandbox.levels import warning_for_root

    warning = warning_for_root()
    if warning is None:
        return CheckResult("user", "pass", "not root")
    return CheckResult("user", "warn", warning, "run ar as an ordinary user")


def _bubblewrap_fix() -> str:
    """Say how to get the best level on Linux: install the package, or allow namespaces."""
    if shutil.which("bwrap") is None:
        return "install bubblewrap (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap)"
    return (
        "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, on Ubuntu 24.04 also "
        "kernel.apparmor_restrict_unprivileged_userns=0; in a container: --privileged"
    )


def check_compiler() -> CheckResult:
    """Check for a C++ compiler, which torch.compile, and mlx on a CPU, call."""
    found = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
    if found is None:
        return CheckResult(
            "compiler", "warn", "no C++ compiler: compiled training steps are not possible", "install g++"
        )
    return CheckResult("compiler", "pass", found)


def check_memory() -> CheckResult:
    """Check free host memory: the frameworks alone take about a gigabyte per process."""
    memory = host_memory()
    detail = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < 2 * GIB:
        return CheckResult("memory", "warn", detail, "close other programs, or use --preset demo")
    return CheckResult("memory", "pass", detail)


def check_disk(folder: Path) -> CheckResult:
    """Check disk space for prepared corpora: about 0.1 GiB for stdlib, several for climbmix."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    detail = f"{free / GIB:.1f} GiB free at {place}"
    if free < GIB / 2:
        return CheckResult("disk", "fail", detail, "free some space, or set AR_DATA_DIR to another disk")
    if free < 5 * GIB:
        return CheckResult("disk", "warn", detail, "enough for stdlib only; set AR_DATA_DIR to another disk for more")
    return CheckResult("disk", "pass", detail)


def check_data(folder: Path) -> CheckResult:
    """Check that a corpus is prepared, its files have their recorded sizes, and nothing that trials need is missing."""
    from autoresearch.core.data.manifest import Prepared

    opened: list[str] = []
    broken: list[str] = []
    fixes: list[str] = []
    for manifest in sorted(folder.glob("*/manifest.json")):
        try:
            prepared = Prepared.open(manifest.parent)
            for vocab in prepared.vocabularies:
                prepared.quick_check(vocab)
            if (missing := missing_parts(prepared)) is not None:
                broken.append(f"{manifest.parent} {missing}")
                fixes.append(fix_of(prepared))
                continue
            opened.append(f"{manifest.parent.name} (vocabularies {', '.join(map(str, prepared.vocabularies))})")
        except ArError as error:
            broken.append(error.message)
            fixes.append("ar prepare")
    if broken:
        return CheckResult("data", "warn", "; ".join(broken), "; ".join(dict.fromkeys(fixes)))
    if not opened:
        return CheckResult("data", "warn", f"nothing prepared in {folder}", "ar prepare (or just ar loop: it prepares)")
    return CheckResult("data", "pass", f"{'; '.join(opened)} in {folder}")


def missing_parts(prepared: Prepared) -> str | None:
    """Say what an interrupted `ar prepare` has left undone; None where trials find all that they need."""
    if not prepared.vocabularies:
        return "has no vocabulary yet"
    for record in prepared.manifest.vocabularies:
        lengths = [{rows.seq_len for rows in record.rows if rows.split == split} for split in ("val", "test")]
        if not lengths[0] & lengths[1]:
            return f"has no rows to score with vocabulary {record.size} yet"
    return None


def fix_of(prepared: Prepared) -> str:
    """Write the command that prepares what is missing in this folder."""
    manifest = prepared.manifest
    sizes = ",".join(map(str, prepared.vocabularies))
    options = {"--vocab": sizes, "--shards": manifest.shards, "--val-bytes": manifest.val_bytes}
    given = " ".join(f"{name} {value}" for name, value in options.items() if value)
    return f"ar prepare --corpus {shlex.quote(manifest.source.corpus)} {given}"


def check_keys() -> CheckResult:
    """List keys for language models, by name only. The default researcher needs none."""
    present = [name for name in KEYS if os.environ.get(name)]
    return CheckResult("keys", "pass", ", ".join(present) or "none set; the tuner needs none")


def check_workspace(settings: Settings) -> CheckResult:
    """Check that the workspace is a git repository with a program and train files, and has room for runs."""
    folder, fix = settings.workspace, "ar init DIR, then work in there"
    if not (folder / "program.md").is_file():
        return CheckResult("workspace", "warn", f"{folder} has no program.md", fix)
    files = sorted(folder.glob("backends/*/train.py"))
    if not files:
        return CheckResult("workspace", "warn", f"{folder} has no backends/*/train.py", fix)
    from autoresearch.core.config import runs_dir
    from autoresearch.core.errors import SourceError, UsageError
    from autoresearch.core.store.git import run_git

    try:
        run_git(folder, "rev-parse", "HEAD")
    except SourceError as error:
        if "dubious ownership" in error.message:
            trust = f"git config --global --add safe.directory {shlex.quote(str(folder))}, if you trust it"
            return CheckResult(
                "workspace", "warn", f"{folder} belongs to somebody else, and git does not use it", trust
            )
        return CheckResult(
            "workspace", "warn", f"{folder} is not a git repository with a commit", "git init, git commit"
        )
    try:
        runs = runs_dir(folder)
    except UsageError as error:
        return CheckResult("workspace", "fail", error.message, error.fix)
    place = runs if runs.is_dir() else folder  # a link to a larger disk, maybe
    if not os.access(place, os.W_OK):
        return CheckResult(
            "workspace", "fail", f"{place} cannot be written to", "check its permissions, or ar init DIR"
        )
    if (free := shutil.disk_usage(place).free) < ROOM_FOR_RUNS:
        return CheckResult("workspace", "fail", f"{place} has {free / 2**20:.0f} MiB free for runs", "free some space")
    return CheckResult(
        "workspace", "pass", f"{folder}: train files for {', '.join(file.parent.name for file in files)}"
    )
