"""Everything that a machine should be asked on its first day, in parts of at most eight minutes that resume.

What the machine is; a trial at every isolation level; compiling cold and warm; speed, share of the peak and memory of
the preset, of four variants and of the public baseline's sizes; a profile; scoring and audit; a long trial; three
seeds. Each part is a process of its own with a time limit: one that dies costs only itself, and its reason is recorded.
A second call does what is missing. No network is used: the corpus is made of the Python sources that lie on the
machine, and packages that it lacks come from a folder of wheels. All figures go to one JSON file, and from there into
docs/hardware.md.

    python -m benchmarks.first_light --backend cuda --preset h100 --wheels WHEELS --json first_light.json
    python -m benchmarks.first_light --write-docs first_light.json
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import signal
import site
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # nothing of the project is imported before its packages are sure to be there
    from autoresearch.core.config import Preset
    from autoresearch.core.data.manifest import Prepared
    from autoresearch.core.events import TrialEvent
    from autoresearch.core.trial.request import Carried, IsolationLevel, TrialRequest, TrialResult

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "hardware.md"
NAME = "benchmarks.first_light"
PART_SECONDS = 480.0
"""Longest time of one part."""
CORPUS_BYTES = 150_000_000
LEAST_CORPUS_BYTES = 20_000_000
"""Below this the machine's Python sources are too few, and the corpus is `stdlib`."""
NEEDED = "autoresearch.core.trial.supervisor, autoresearch.core.data.prepare, autoresearch.core.bench.measure"
"""Modules whose imports say whether the packages are there."""
BASELINE: Mapping[str, Any] = {
    "DEPTH": 8,
    "DIM": 512,
    "HEAD_DIM": 128,
    "WINDOW_PATTERN": "SSSL",
    "SHORT_WINDOW": 1024,
    "BATCH_TOKENS": 524288,
    "DEVICE_BATCH_ROWS": 128,
}
"""Sizes of the public baseline (karpathy/autoresearch), which on one H100 reports 1.65 M tokens/s and an MFU of 39.8 %.
Its count of FLOPs includes attention."""
VARIANTS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "half the rows": ("DEVICE_BATCH_ROWS", lambda rows: max(1, rows // 2)),
    "twice the loss chunk": ("LOSS_CHUNK_TOKENS", lambda tokens: 2 * tokens),
    "the other windows": ("WINDOW_PATTERN", lambda pattern: "L" if "S" in pattern else "SSSL"),
    "the other softcap": ("SOFTCAP", lambda cap: 0.0 if cap else 15.0),
}
"""Name of a variant -> the constant that it changes, and the new value from the old one."""
SMALL: Mapping[str, Any] = {
    "DEPTH": 1,
    "DIM": 64,
    "HEAD_DIM": 32,
    "SEQ_LEN": 256,
    "BATCH_TOKENS": 2048,
    "DEVICE_BATCH_ROWS": 8,
    "LOSS_CHUNK_TOKENS": 512,
    "NGRAM_ROWS": 0,
    "MEMORY_TOKENS": 0,
    "LOG_EVERY": 1,
}
"""Sizes with which `--small` tries the command itself, on any machine."""


@dataclass(frozen=True)
class Budgets:
    """Training seconds of the trials of each kind."""

    start: float = 5.0
    speed: float = 20.0
    score: float = 30.0
    long: float = 240.0
    seed: float = 60.0
    profile: float = 20.0


SMALL_BUDGETS = Budgets(*(1.0,) * 5, profile=8.0)


# ---- the record


class Figures:
    """The JSON file: what each part found, written anew after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.parts: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["parts"]
        except FileNotFoundError:
            self.parts = {}
        except (ValueError, KeyError, TypeError) as error:
            raise SystemExit(f"{path} is no record of this benchmark ({error}): name another file by --json") from error

    def add(self, name: str, part: dict[str, Any]) -> None:
        """Note a part, and write the file so that a kill in between leaves the old one."""
        self.parts[name] = part
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps({"parts": self.parts}, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.path)

    def waiting(self, names: Sequence[str]) -> list[str]:
        """Order the parts that are not done: the untried ones first, then those that failed."""
        untried = [name for name in names if name not in self.parts]
        return untried + [name for name in names if self.parts.get(name, {}).get("status") == "failed"]


# ---- the packages that a bare machine lacks


def interpreter(work: Path, wheels: Path | None) -> str:
    """Return a Python that runs the parts: this one, or one of its own with the wheels and this checkout in it.

    Trials start in other folders and without PYTHONPATH, so the checkout must be found by the interpreter itself.
    """
    for python in (sys.executable, str(work / "python" / "bin" / "python")):
        if Path(python).exists() and why_not(python, work) is None:
            return python
    python = layered(work / "python", wheels)
    if (why := why_not(python, work)) is not None:
        raise SystemExit(f"the packages are not complete: {why}. Put wheels of what is missing into --wheels DIR")
    return python


def why_not(python: str, work: Path) -> str | None:
    """Say why this Python cannot import what a trial needs, from an empty folder; None when it can."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        answer = subprocess.run(
            [python, "-c", f"import {NEEDED}"], cwd=empty, env=environment, capture_output=True, text=True, check=False
        )
    return (answer.stderr.strip().splitlines() or ["it does not start"])[-1] if answer.returncode else None


def layered(folder: Path, wheels: Path | None) -> str:
    """Make a virtual environment upon this Python's packages, with the wheels and this checkout; return its Python.

    Inside a virtual environment there is no layer to add, so that one gets both.
    """
    if sys.prefix == sys.base_prefix:
        venv.create(folder, system_site_packages=True, with_pip=False, symlinks=True)
        python = str(folder / "bin" / "python")
        places = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    else:
        python, places = sys.executable, sysconfig.get_paths()
    if wheels is not None:
        install(wheels, Path(places["purelib"]))
    # A link rather than a line in a .pth file: a sandboxed child may read the package, but not list the checkout.
    link = Path(places["purelib"], "autoresearch")
    if link.is_symlink():
        link.unlink()  # to another checkout, or to one that is gone
    if not link.exists():
        link.symlink_to(ROOT / "autoresearch")
    return python


def install(wheels: Path, target: Path) -> None:
    """Install every package of the folder, from the folder alone."""
    names = sorted({path.name.split("-")[0] for path in wheels.glob("*.whl")})
    if not names:
        raise SystemExit(f"{wheels} holds no wheels")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--find-links"]
    answer = subprocess.run(
        [*command, str(wheels), "--target", str(target), *names], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise SystemExit(f"pip cannot install from {wheels}: {answer.stderr.strip().splitlines()[-1:]}")


# ---- text


def write_corpus(folder: Path, limit: int) -> str:
    """Write the Python sources that are installed here as JSON lines, up to `limit` bytes; return the corpus' name.

    A text that occurs twice is taken once, so that a held-out document is not trained on. Too few bytes: `stdlib`.
    """
    paths = sysconfig.get_paths()
    roots = [Path(paths["stdlib"]), *map(Path, dict.fromkeys([paths["purelib"], *site.getsitepackages()]))]
    folder.mkdir(parents=True, exist_ok=True)
    total, seen = 0, set()
    with (folder / "python.jsonl").open("w", encoding="utf-8") as out:
        for path in sources(roots):
            if total >= limit:
                break
            with contextlib.suppress(OSError, UnicodeDecodeError):
                text = path.read_text(encoding="utf-8")
                if len(text) > 200 and hash(text) not in seen:
                    seen.add(hash(text))
                    out.write(json.dumps({"text": text}) + "\n")
                    total += len(text.encode())
    return str(folder) if total >= min(limit, LEAST_CORPUS_BYTES) else "stdlib"


def sources(roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the Python files below the folders, each once, in an order that does not depend on the disk."""
    seen = set()
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if name.endswith(".py") and path not in seen:
                    seen.add(path)
                    yield path


# ---- the parts


@dataclass(frozen=True)
class Bench:
    """What every part is given."""

    backend: str
    preset_name: str
    small: bool
    work: Path
    file: Path | None = None
    """Another train file than the backend's."""
    corpus: Path | None = None
    """A prepared corpus to take instead of one made from this machine's Python sources."""
    isolation: IsolationLevel | None = None
    """Level of every trial but those that try the levels; None: the best one here."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Other training seconds, by the names in `Budgets`."""

    @property
    def budgets(self) -> Budgets:
        """Training seconds by kind of trial."""
        return replace(SMALL_BUDGETS if self.small else Budgets(), **self.seconds)

    def preset(self) -> Preset:
        """Return the preset, with held-out text that suits a small corpus."""
        from autoresearch.core.config import choose_preset, load_presets

        preset = choose_preset(load_presets(self._folder / "presets.toml"), self.preset_name)
        limit = 200_000 if self.small else CORPUS_BYTES // 15
        sizes = {name: min(limit, getattr(preset.data, name)) for name in ("val_bytes", "test_bytes")}
        sizes["vocabularies"] = preset.data.vocabularies[:1]
        return preset.model_copy(update={"data": preset.data.model_copy(update=sizes)})

    @property
    def _folder(self) -> Path:
        from autoresearch import backends

        return Path(next(iter(backends.__path__))) / self.backend

    def source(self, changes: Mapping[str, Any] | None = None) -> str:
        """Return the train file with the preset's sizes and these changes, of which it must know every one."""
        from autoresearch.core.trainfile.constants import read_constants, write_constants, write_preset

        text = (self.file or self._folder / "train.py").read_text(encoding="utf-8")
        text = write_preset(text, self.preset())
        small = {name: value for name, value in SMALL.items() if name in read_constants(text)} if self.small else {}
        return write_constants(text, {**small, **(changes or {})})

    def prepared(self) -> Prepared:
        """Return the prepared corpus; make it now if it is missing."""
        from autoresearch.core.data.manifest import Prepared, PrepareOptions
        from autoresearch.core.data.prepare import prepare

        if self.corpus is not None:
            return Prepared.open(self.corpus)
        data = self.preset().data
        folder = self.work / "corpus"
        name = folder / "name"
        if not name.is_file():
            name_of = write_corpus(folder, 3_000_000 if self.small else CORPUS_BYTES)
            name.write_text(name_of, encoding="utf-8")
        corpus = name.read_text(encoding="utf-8")
        options = PrepareOptions(corpus, data.vocabularies, (data.eval_seq_len,), data.val_bytes, data.test_bytes)
        return prepare(options, Path(os.environ["AR_DATA_DIR"]), lambda line: print(line, file=sys.stderr))

    def request(self, source: str, seconds: float, seed: int = 0, **changes: Any) -> TrialRequest:
        """Make the request for a trial in a new folder."""
        from autoresearch.core.trial.request import TrialTerms

        (self.work / "trials").mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.work / "trials"))
        terms = TrialTerms.of_preset(self.backend, self.preset(), self.prepared().folder, seconds)
        return replace(terms.request(source, folder, seed), **{"isolation": self.isolation, **changes})

    def carried(self, seconds: float) -> Carried:
        """Return the preset's compile caches for trials of that length, copied from another length's if there are any.

        A run makes them once. Here the lengths differ, which changes no shape in our train files.
        """
        from autoresearch.core.trial.compile_cache import name_of
        from autoresearch.core.trial.request import Carried

        made = Carried(self.source(), self.work / "caches" / f"{seconds:g}")
        mine = made.folder / name_of(made.source, seconds)
        others = [folder for folder in self.work.glob("caches/*/*") if folder.is_dir() and folder.suffix != ".new"]
        if not mine.exists() and others:
            shutil.copytree(others[0], mine)
        return made


def trial(request: TrialRequest) -> dict[str, Any]:
    """Run a trial and return its figures. Raises `RuntimeError`, with the trial's reason, when it does not end well."""
    from autoresearch.core.bench.anatomy import take_apart
    from autoresearch.core.events import DeviceFound, read_events
    from autoresearch.core.trial.supervisor import run_trial

    result = run_trial(request)
    said = (request.folder / "run.log").read_text(encoding="utf-8", errors="replace")
    if result.status != "ok":
        last = said.strip().splitlines()[-1:] or ["nothing in run.log"]
        raise RuntimeError(f"the trial ended as {result.status}: {result.reason} ({last[0][:300]})")
    events = read_events(request.folder)
    kinds = [event.device.kind for event in events if isinstance(event, DeviceFound)]
    found = figures_of(result)
    found["kind"] = kinds[0] if kinds else None
    found["said"] = next((line for line in said.splitlines() if re.match(r"(cuda|mlx): ", line)), None)
    found["compiled_seconds"] = compiled_before(events)
    if request.score:
        parts = take_apart(events)
        found |= {"scoring_seconds": parts.scoring, "audit_seconds": parts.audit, "outside_seconds": parts.outside}
    return found


def compiled_before(events: Sequence[TrialEvent]) -> float | None:
    """Return how long the process took that compiled the caches before this trial; None where there was none."""
    from autoresearch.core.events import Compiling, Spawned

    times = {getattr(event, "role", event.name): event.t for event in events if isinstance(event, Compiling | Spawned)}
    begun, ended = times.get(Compiling.name), times.get("train")
    return None if begun is None or ended is None else ended - begun


def figures_of(result: TrialResult) -> dict[str, Any]:
    """Return a trial's figures. MFU is counted from the weights' shapes; `mfu_with_attention` by the train file."""
    mine, claimed = result.flops_per_token, result.claimed_flops_per_token
    names = ("val_bpb", "tokens", "steps", "tokens_per_second", "params", "peak_memory_mb", "peak_host_memory_mb")
    found: dict[str, Any] = {name: getattr(result, name) for name in (*names, "mfu", "startup_seconds", "isolation")}
    found["device"], found["train_seconds"] = result.device, result.train_seconds
    found["mfu_with_attention"] = result.mfu * claimed / mine if result.mfu and claimed and mine else None
    if result.audit is not None:
        found["audit"] = result.audit.model_dump()
    return found


def machine(bench: Bench) -> dict[str, Any]:
    """What the machine is: device, versions, peak of its products, and what else could matter."""
    from autoresearch.core.bench.measure import find_peak
    from autoresearch.core.trial.device import cores

    device, peak = find_peak(bench.backend, print)
    memory = Path("/proc/meminfo")
    return {
        "device": device.name,
        "kind": device.kind,
        "memory_mb": device.memory_mb,
        "precision": device.precision,
        "framework": device.framework,
        "driver": device.driver,
        "preset_by_itself": device.tier,
        "products_flops": peak,
        "data_sheet_flops": device.peak_flops,
        "cores": cores(),
        "host_memory": memory.read_text().splitlines()[0].split(":")[1].strip() if memory.exists() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "cards": answer_of("nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv"),
        "commit": answer_of("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
    }


def answer_of(*command: str) -> str | None:
    """Return what a program prints; None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return answer.stdout.strip() if answer.returncode == 0 else None


def doctor(bench: Bench) -> dict[str, Any]:
    """What `ar doctor` says."""
    from autoresearch.core.cli.checks import check_all
    from autoresearch.core.cli.context import Settings

    settings = Settings(workspace=ROOT, backend=bench.backend)
    return {result.name: [result.status, result.detail] for result in check_all(settings)}


def corpus(bench: Bench) -> dict[str, Any]:
    """How long it takes to prepare the corpus, and what it holds."""
    started = time.monotonic()
    prepared = bench.prepared()
    vocabulary = bench.preset().data.vocabularies[0]
    scored = prepared.scored_rows("val", vocabulary, bench.preset().data.eval_seq_len)
    return {
        "name": prepared.manifest.source.corpus,
        "seconds": time.monotonic() - started,
        "scored_rows": len(scored.rows),
        "scored_bytes": int(scored.total_bytes),
    }


def start(bench: Bench, level: IsolationLevel) -> dict[str, Any]:
    """A short compiled trial of the small common work at an isolation level: does it start, and on which device."""
    from autoresearch.core.bench.work import COMMON
    from autoresearch.core.trainfile.constants import read_constants
    from autoresearch.core.trial.sandbox.levels import levels

    status = next(one for one in levels() if one.level == level)
    if not status.available:
        return {"skipped": status.why_not}
    known = read_constants(bench.source())
    wanted = {} if bench.small else {**COMMON, "COMPILE": "on", "VOCAB_SIZE": known.get("VOCAB_SIZE")}
    changes = {name: value for name, value in wanted.items() if name in known}
    return trial(bench.request(bench.source(changes), bench.budgets.start, isolation=level, score=False))


def compiling(bench: Bench) -> dict[str, Any]:
    """Start-up of the preset: the process that compiles it without a cache, then a trial with the cache that it left.

    Where nothing is isolated, no caches are carried, and the trial itself starts cold.
    """
    seconds = bench.budgets.start
    found = trial(bench.request(bench.source(), seconds, score=False, carried=bench.carried(seconds)))
    cold = found["compiled_seconds"]
    return {
        "cold_seconds": found["startup_seconds"] if cold is None else cold,
        "warm_seconds": None if cold is None else found["startup_seconds"],
        "isolation": found["isolation"],
        "said": found["said"],
    }


def speed(bench: Bench, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens a second, share of the peak and memory, from a trial that is not scored."""
    seconds = bench.budgets.speed
    return trial(bench.request(bench.source(changes), seconds, score=False, carried=bench.carried(seconds)))


def variant(bench: Bench, name: str) -> dict[str, Any]:
    """The same with one constant changed."""
    from autoresearch.core.trainfile.constants import read_constants

    constant, change = VARIANTS[name]
    known = read_constants(bench.source())
    if constant not in known:
        return {"skipped": f"the train file has no constant {constant}"}
    value = change(known[constant])
    return {"changed": f"{constant} = {value!r}", **speed(bench, {constant: value})}


def baseline_sizes(bench: Bench) -> dict[str, Any]:
    """The same at the public baseline's sizes, with the attention that this machine has."""
    from autoresearch.core.trainfile.constants import read_constants

    known = read_constants(bench.source())
    if missing := sorted(BASELINE.keys() - known.keys()):
        return {"skipped": f"the train file has no constant {missing[0]}"}
    return speed(bench, {name: known[name] for name in BASELINE} if bench.small else BASELINE)


def profile(bench: Bench) -> dict[str, Any]:
    """Where the time of a step goes; the page and the trace stay beside the JSON file's work folder."""
    from autoresearch.core.trial.profile import GRACE_SECONDS
    from autoresearch.core.trial.supervisor import run_trial

    seconds = bench.budgets.profile
    request = bench.request(bench.source(), seconds, score=False, profile=True, carried=bench.carried(seconds))
    result = run_trial(replace(request, budget=replace(request.budget, grace_floor_seconds=GRACE_SECONDS)))
    if result.status != "ok" or result.profile is None:
        why = result.reason or "training ended before it had enough batches"
        raise RuntimeError(f"no profile: the trial ended as {result.status}: {why}")
    return {**result.profile.model_dump(), "folder": str(request.folder)}


def scored(bench: Bench, seconds: float, seed: int = 0) -> dict[str, Any]:
    """A whole trial with score and audit."""
    # A split of a few rows is too small for the audit's usual share.
    share = 2.0 if bench.small else None
    return trial(bench.request(bench.source(), seconds, seed, carried=bench.carried(seconds), audit_share=share))


def parts(bench: Bench) -> dict[str, Callable[[], dict[str, Any]]]:
    """List every part by name, in the order in which they tell most."""
    levels: tuple[IsolationLevel, ...] = ("bubblewrap", "landlock", "seatbelt", "process")
    budgets = bench.budgets
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "machine": lambda: machine(bench),
        "doctor": lambda: doctor(bench),
        "corpus": lambda: corpus(bench),
        **{f"start: {level}": lambda level=level: start(bench, level) for level in levels},  # type: ignore[misc]
        "compiling": lambda: compiling(bench),
        "speed": lambda: speed(bench, {}),
        "profile": lambda: profile(bench),
        "trial": lambda: scored(bench, budgets.long),
        "baseline sizes": lambda: baseline_sizes(bench),
        **{f"speed: {name}": lambda name=name: variant(bench, name) for name in VARIANTS},  # type: ignore[misc]
        "scoring": lambda: scored(bench, budgets.score),
        **{f"seed {n}": lambda n=n: scored(bench, budgets.seed, n) for n in range(3)},  # type: ignore[misc]
    }
    return found


# ---- running them


def run_part(command: Sequence[str], name: str, seconds: float, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a part in a process of its own, at most so long; return its figures or why there are none."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        answer, said = Path(folder, "answer.json"), Path(folder, "said")
        with said.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--part", name, "--answer", str(answer)],
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
            try:
                status = process.wait(seconds)
                why = f"its process ended with {status}"
            except subprocess.TimeoutExpired:
                why = f"it took longer than {seconds:.0f} s"
            finally:
                # A trial's own processes end with their parent; this ends the part and what it has started itself.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        took = round(time.monotonic() - started, 1)
        try:
            figures = json.loads(answer.read_text(encoding="utf-8"))
            return {"status": "skipped" if "skipped" in figures else "ok", "seconds": took, "figures": figures}
        except (OSError, ValueError):
            last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            return {"status": "failed", "seconds": took, "why": " | ".join([*last, why])[:1000]}


def run_all(options: argparse.Namespace) -> int:
    """Run what is missing while time is left; return the exit code, 1 when a part failed."""
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    python = interpreter(work, options.wheels)
    figures = Figures(options.json)
    command = [python, "-m", NAME, "--backend", options.backend, "--preset", options.preset, "--work", str(work)]
    command += ["--small"] if options.small else []
    command += ["--file", str(options.file.resolve())] if options.file else []
    command += ["--prepared", str(options.prepared.resolve())] if options.prepared else []
    command += ["--isolation", options.isolation] if options.isolation else []
    command += [f"--budget={name}={seconds}" for name, seconds in options.budget]
    names = list(parts(Bench(options.backend, options.preset, options.small, work)))
    if unknown := [name for name in options.only or () if name not in names]:
        raise SystemExit(f"there is no part {unknown[0]!r}; the parts are: {', '.join(names)}")
    ends = time.monotonic() + options.seconds if options.seconds else float("inf")
    failed = 0
    for name in figures.waiting(options.only or names):
        left = min(options.part_seconds, ends - time.monotonic())
        if left < min(30.0, options.part_seconds):
            print(f"{name}: no time left; the same command goes on here", file=sys.stderr)
            break
        print(f"{name} ...", file=sys.stderr, flush=True)
        part = run_part(command, name, left, {"AR_DATA_DIR": str(work / "data")})
        when = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"
        figures.add(name, {**part, "preset": options.preset, "backend": options.backend, "when": when})
        failed += part["status"] == "failed"
        print(f"  {part['status']} after {part['seconds']} s {part.get('why', '')}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def answer_part(options: argparse.Namespace) -> int:
    """Do one part in this process, and write its figures."""
    bench = Bench(
        options.backend,
        options.preset,
        options.small,
        options.work,
        options.file,
        options.prepared,
        options.isolation,
        dict(options.budget),
    )
    try:
        found = parts(bench)[options.part]()
    except Exception as error:  # whatever it is, it is the answer
        print(f"{type(error).__name__}: {error}".replace("\n", " "))
        return 1
    options.answer.write_text(json.dumps(found), encoding="utf-8")
    return 0


# ---- the page

BEGIN, END = "<!-- first light: written by benchmarks/first_light.py -->", "<!-- end of first light -->"
Columns = Sequence[tuple[str, Callable[[dict[str, Any]], Any]]]


def write_docs(record: Path, page: Path) -> None:
    """Put the record's tables into the page: a section for each device, in place of an earlier one."""
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{page} has no place for the tables: a line {BEGIN!r} and a line {END!r}")
    before, rest = text.split(BEGIN, 1)
    middle, after = rest.split(END, 1)
    found = Figures(record).parts
    if not found:
        raise SystemExit(f"{record} holds no figures")
    title = title_of(found)
    sections = {part.split("\n", 1)[0]: part.rstrip() for part in middle.split("\n### ")[1:]}
    sections[title] = f"{title}\n\n{section(found)}".rstrip()
    body = "\n\n".join(f"### {part}" for part in sections.values())
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def title_of(found: Mapping[str, Any]) -> str:
    """Name the section by the device and what was measured on it."""
    device = figures(found, "machine").get("device") or next(
        (name for part in found.values() if (name := part.get("figures", {}).get("device"))), "an unknown device"
    )
    backend, preset = (next(iter(found.values())).get(key, "?") for key in ("backend", "preset"))
    return f"{device}, `{backend}`, preset `{preset}`"


def figures(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a part's figures; {} where there are none."""
    part = found.get(name, {})
    return dict(part["figures"]) if part.get("status") == "ok" else {}


def section(found: Mapping[str, Any]) -> str:
    """Write all tables of one device."""
    here = figures(found, "machine")
    facts = [here.get(name) for name in ("framework", "driver", "system")]
    facts.append(f"{here['cores']} cores" if here else None)
    peaks = [f"{name} products {flops / 1e12:.3g} TFLOP/s" for name, flops in here.get("products_flops", {}).items()]
    when = max(part.get("when", "") for part in found.values())
    lines = [", ".join([*map(str, filter(None, [when, here.get("commit"), *facts])), *peaks]) + ".", ""]
    lines += table(
        "speed",
        {name: figures(found, name) for name in found if name.startswith("speed") or name == "baseline sizes"},
        (
            ("tokens/s", lambda row: number(row.get("tokens_per_second"))),
            ("MFU", lambda row: percent(row.get("mfu"))),
            ("with attention", lambda row: percent(row.get("mfu_with_attention"))),
            ("memory, MiB", lambda row: number(row.get("peak_memory_mb"))),
            ("how", lambda row: row.get("changed") or way_of(row)),
        ),
    )
    starts = {name: figures(found, name) for name in found if name.startswith("start: ")}
    lines += table(
        "start-up",
        starts,
        (
            ("seconds", lambda row: number(row.get("startup_seconds"))),
            ("on", lambda row: row.get("kind")),
            ("how", way_of),
        ),
    )
    if both := figures(found, "compiling"):
        warm = number(both["warm_seconds"])
        lines += [f"The preset starts in {number(both['cold_seconds'])} s"]
        lines[-1] += "." if warm is None else f", with the incumbent's caches in {warm} s."
        lines += [""]
    names = ["trial", "scoring", *(f"seed {n}" for n in range(3))]
    lines += table(
        "trial",
        {name: figures(found, name) for name in names},
        (
            ("trained, s", lambda row: number(row.get("train_seconds"))),
            ("tokens", lambda row: number(row.get("tokens"))),
            ("val_bpb", lambda row: row.get("val_bpb") and f"{row['val_bpb']:.4f}"),
            ("start-up, s", lambda row: number(row.get("startup_seconds"))),
            ("scoring, s", lambda row: number(row.get("scoring_seconds"))),
            ("audit, s", lambda row: number(row.get("audit_seconds"))),
            ("max_abs, nats", lambda row: number((row.get("audit") or {}).get("max_abs"))),
        ),
    )
    scores = [row["val_bpb"] for n in range(3) if (row := figures(found, f"seed {n}")).get("val_bpb")]
    if len(scores) > 1:
        lines += [f"Standard deviation over {len(scores)} seeds: {statistics.stdev(scores):.4f} bpb.", ""]
    operations = figures(found, "profile").get("operations", [])[:10]
    lines += table(
        "operation",
        {name: {"seconds": seconds, "calls": calls} for name, seconds, calls in operations},
        (("seconds", lambda row: number(row["seconds"])), ("calls", lambda row: number(row["calls"]))),
    )
    without = {name: part for name, part in found.items() if part["status"] != "ok"}
    reasons = {name: part.get("why") or part["figures"]["skipped"] for name, part in without.items()}
    lines += [f"- no figures for {name}: {plain(why)}" for name, why in reasons.items()]
    return "\n".join(lines)


def way_of(row: Mapping[str, Any]) -> str | None:
    """Return what a trial said of its way to compute, without the reasons against other ways."""
    said = row.get("said")
    return said and re.sub(r" \(no [^()]*(\([^()]*\)[^()]*)*\)", "", said)


def table(title: str, rows: Mapping[str, dict[str, Any]], columns: Columns) -> list[str]:
    """Write a table of the rows that have figures; nothing where none has."""
    filled = {name: row for name, row in rows.items() if row}
    if not filled:
        return []
    lines = [f"| {title} | {' | '.join(name for name, _ in columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name, row in filled.items():
        cells = (plain(value) if (value := cell(row)) is not None else "" for _, cell in columns)
        lines.append(f"| {plain(name)} | {' | '.join(cells)} |")
    return [*lines, ""]


def plain(value: Any) -> str:
    """Write a value that came from a child so that it stays in its cell."""
    return " ".join(str(value).split()).replace("|", "/").replace("<", "&lt;")[:300]


def number(value: float | None) -> str | None:
    """Write a number with three digits, or whole from 100 on."""
    return None if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float | None) -> str | None:
    """Write a share as a percentage."""
    return None if value is None else f"{100 * value:.1f} %"


# ---- the command


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Measure this machine with the `cuda` backend, and return its figures of speed as rows."""
    record = Path(tempfile.gettempdir(), "first_light.json")
    arguments = ["--backend", "cuda", "--json", str(record), "--work", str(record.with_suffix(".work"))]
    main([*arguments, *(["--small"] if quick else [])])
    speeds = {name: figures(Figures(record).parts, name) for name in ("speed", "baseline sizes")}
    return [
        {"name": name, "median": row["tokens_per_second"], "unit": "tokens/s", "note": row.get("said") or ""}
        for name, row in speeds.items()
        if row
    ]


def preset_for(backend: str) -> str:
    """Return the preset that this machine's device suits."""
    if backend == "cuda" and not list(Path("/dev").glob("nvidia[0-9]*")):
        return "cpu"
    return {"cuda": "h100", "mlx": "mac" if sys.platform == "darwin" else "cpu"}.get(backend, "demo")


def budget(text: str) -> tuple[str, float]:
    """Read NAME=SECONDS. Raises `ValueError`."""
    name, _, seconds = text.partition("=")
    if name not in {one.name for one in fields(Budgets)}:
        raise ValueError(f"no budget {name}")
    return name, float(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options; run what is missing, one part, or write the page."""
    kinds = ", ".join(one.name for one in fields(Budgets))
    parser = argparse.ArgumentParser(prog=f"python -m {NAME}", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--backend", default="mlx" if sys.platform == "darwin" else "cuda")
    parser.add_argument("--preset", help="the preset to measure (default: h100, mac, or cpu without a GPU)")
    parser.add_argument("--json", type=Path, default=Path("first_light.json"), help="the record; parts in it are done")
    parser.add_argument("--work", type=Path, default=Path("runs/first_light"), help="folder for corpus and trials")
    parser.add_argument("--wheels", type=Path, help="folder of wheels for packages that this Python lacks")
    parser.add_argument("--file", type=Path, help="another train file")
    parser.add_argument(
        "--prepared", type=Path, metavar="FOLDER", help="a prepared corpus to take, as `ar prepare` makes"
    )
    parser.add_argument("--isolation", metavar="LEVEL", help="level of all trials but those that try the levels")
    parser.add_argument(
        "--budget", type=budget, action="append", default=[], metavar="NAME=SECONDS", help=f"training time of {kinds}"
    )
    parser.add_argument("--only", action="append", metavar="PART", help="this part; may be repeated")
    parser.add_argument("--seconds", type=float, help="start no part that could end later than this")
    parser.add_argument("--part-seconds", type=float, default=PART_SECONDS, help="longest time of one part")
    parser.add_argument("--small", action="store_true", help="tiny sizes: tries the command, measures nothing")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put this record's tables into the page")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page of --write-docs")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write_docs:
        write_docs(options.write_docs, options.page)
        return 0
    options.preset = options.preset or ("demo" if options.small else preset_for(options.backend))
    return answer_part(options) if options.part else run_all(options)


if __name__ == "__main__":
    sys.exit(main())
