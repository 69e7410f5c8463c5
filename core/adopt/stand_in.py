"""A script in upstream's form as a train file: what its `build`, `train` and `logits` are, and what `prepare` is to it.

This runs in a trial's children, next to the script and as little trusted: to the core it is part of the train file. The
parent's clock, the feeder, the capturing of weights and the audit treat an adopted script as any other train file.

In the train child `train` runs the whole script. Its batches come from the feed and end with it. The model that it
hands to `evaluate_bpb` is the one to score; a script that is still in its loop when the batches are over is ended
there, and the model that its source would hand over is taken. In the score and audit children `build` runs the script
until it uses its first batch, which is random tokens, and takes the model from there.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import math
import os
import re
import signal
import sys
import threading
import traceback
import types
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic  # bound here, before a script could put its own clock in the module's place
from typing import Any, NoReturn

import numpy as np

from autoresearch.core.adopt.script import OFFERED, ScriptFault, parse_script, scored_names

TAIL_SECONDS = 0.3
"""Seconds that a script has to print its summary after `evaluate_bpb`, once the batches are over: its weights wait."""
ESTIMATE_TOKENS = 4096
"""Tokens of the last batch that `evaluate_bpb` estimates with, at most, and one row at least."""
ESTIMATE_SECONDS = 0.3
"""Longest time for that, by the speed of the training: the batches are over by then, and the weights wait."""
FORWARD_SHARE = 1 / 3
"""Share of a training step that its forward pass takes."""
MODEL_BATCHES = 4
"""Batches of random tokens that a script may take before its model is there."""
CALL_SECONDS = 5.0
"""Seconds in which a script that gets its batches from a thread of its own calls its model with the first one."""
WARM_BATCHES = 36
"""Batches of random tokens in the compile child: a step of many micro-batches and its optimizer's graphs come first."""
STEPS = 33
"""Number of recent steps, and of batches, whose times predict the next one's."""
USAGE = 2
"""Exit status of an argument parser that misses an argument."""
CLAIM = re.compile(r"val_bpb[^\w.+-]{1,20}([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)[\s,;}\])]")
"""A script's own line about its metric."""
STEP = re.compile(r"step\W{0,3}(\d{1,9})\b.{0,80}?loss\W{1,3}(\d+\.\d+)")
"""A script's own line about a step."""
TAIL_CHARACTERS = 400
"""Characters of the output in which a line is looked for that came in pieces."""


class NoMoreBatches(StopIteration):
    """The feed is over. A `for` loop ends by it."""


class Interrupted(BaseException):
    """The script has done what it was run for. Not an `Exception`, so that a script's own handlers let it pass."""


class AdoptedScript:
    """A script with the functions of a train file (see `contract.TrainFile`)."""

    def __init__(self, path: str, job: Mapping[str, Any], runtime: Any) -> None:
        """Read and compile the script. `job["upstream"]` holds what the parent says of the tokenizer."""
        source = Path(path).read_text(encoding="utf-8")
        linecache.cache[path] = (len(source), None, io.StringIO(source, newline=None).readlines(), path)
        self._path, self._job, self._runtime = path, job, runtime
        tree = parse_script(source)
        self._names = scored_names(tree)
        self._code = compile(tree, path, "exec")
        self._kind = "cpu"
        self._autocast: tuple[str, Any] | None = None
        self.claimed_bpb: float | None = None
        """The val_bpb that the script has printed last. A claim."""

    def build(self, spec: Any) -> Any:
        """Run the script until it uses its first batch and return its model; None where `train` runs all of it."""
        self._kind = spec.device
        if self._job["role"] in ("train", "compile"):
            return None
        scoring = ScoringService(self._runtime, self._job, self._path, self._names, self._kind)
        self._find_model(scoring)
        self._autocast = scoring.autocast
        return scoring.model

    def train(self, model: Any, data: Any, clock: Any) -> Any:
        """Run the script from its first line to its end, or to the end of the batches; return the model to score.

        Raises `ScriptFault` where it leaves nothing to measure, and what the script itself raises.
        """
        kind = CompilingService if self._job["role"] == "compile" else TrainingService
        training = kind(self._runtime, self._job, self._path, self._names, data, clock)
        space = self._run(training, Output(sys.stdout, clock, self))
        if not training.given:
            raise ScriptFault("the script has ended without asking make_dataloader for a batch, so it has not trained")
        # Also where it has replaced our `evaluate_bpb` by one of its own: what counts is its model.
        model = training.model or look_up(self._names, [space]) or training.seen
        if model is None:
            raise ScriptFault("the script has ended without handing a model to evaluate_bpb: nothing to measure")
        return unwrapped(model)

    def logits(self, model: Any, tokens: Any) -> Any:
        """Call the model as the script would without targets, in the same mixed precision as in its training."""
        there = beside(model, tokens)
        if self._autocast is None:
            out = model(there)
        else:
            kind, dtype = self._autocast
            with sys.modules["torch"].autocast(kind, dtype=dtype):
                out = model(there)
        out = out[0] if isinstance(out, tuple) else out
        return out if there is tokens else out.to(tokens.device)

    def _find_model(self, scoring: ScoringService) -> None:
        try:
            self._run(scoring, None)
        except Exception:
            if scoring.model is None:
                raise
        finally:
            scoring.disarm()
        if scoring.model is None:
            raise ScriptFault("the script, run again for scoring, does not come to a model")

    def _run(self, service: PrepareService, output: Output | None) -> dict[str, Any]:
        """Run the script; return its global names. Raises what it raises, unless that is how it was to end."""
        module = types.ModuleType("__main__")
        module.__file__ = self._path
        sys.modules["__main__"] = module  # dataclasses look their module up
        sys.modules["prepare"] = stand_in(service, self._job)
        sys.argv = [self._path]
        pid, before = os.getpid(), sys.stdout
        handler = signal.signal(signal.SIGALRM, _interrupt)
        sys.stdout = output or before
        try:
            exec(self._code, module.__dict__)
        except Interrupted:
            pass
        except SystemExit as end:
            if end.code not in (None, 0) and not service.over:
                hint = "; it is run without arguments" if end.code == USAGE else ""
                raise ScriptFault(f"the script has ended itself with exit status {end.code}{hint}") from end
        except Exception as error:
            if not (service.over and follows_the_end(error)):
                self._explain(error)
                raise
        finally:
            if os.getpid() != pid:
                os._exit(0)  # a copy that the script has made of this process: the original goes on
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
            sys.stdout = before
            with contextlib.suppress(Exception):
                before.flush()
        return module.__dict__

    def _explain(self, error: Exception) -> None:
        """Raise `ScriptFault` in place of an exception that says in a framework's words that there is no GPU."""
        frames = traceback.extract_tb(error.__traceback__)
        mine = [frame.lineno for frame in frames if frame.filename == self._path]
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        where = f" (line {mine[-1]} of train.py: {said})" if mine else f" ({said})"
        if self._kind != "cuda" and re.search(r"\bCUDA\b|NVIDIA|cuda device", said):
            raise ScriptFault(f"the script needs an NVIDIA GPU, and PyTorch sees none here{where}") from error
        if any(f"{os.sep}kernels{os.sep}" in frame.filename for frame in frames):
            raise ScriptFault(f"the script loads a kernel that is not on this machine{where}") from error


class PrepareService(ABC):
    """Serves a script what it asks `prepare` for. One class for each kind of child."""

    def __init__(self, runtime: Any, job: Mapping[str, Any], path: str, names: tuple[str, ...]) -> None:
        self.runtime, self.job = runtime, job
        self._path, self._names = path, names
        self.model: Any = None
        """The model to score, once it is known."""
        self.over = False
        """True once there are no more batches."""

    def time_budget(self) -> float:
        """Return TIME_BUDGET."""
        return float(self.job["upstream"]["budget_seconds"])

    @abstractmethod
    def batch(self, batch: int, seq: int) -> tuple[Any, Any, int]:
        """Return inputs and targets, each (batch, seq), and the epoch from 1. Raises `NoMoreBatches`."""

    @abstractmethod
    def evaluate(self, model: Any) -> float:
        """Note the model to score; return what the script is told, in bits per byte."""

    def spaces(self) -> Iterator[Mapping[str, Any]]:
        """Yield the names that the script's functions under way know, the innermost's first."""
        frames = [sys._getframe(1), sys._current_frames().get(threading.main_thread().ident or 0)]
        for frame in frames if in_thread() else frames[:1]:
            while frame is not None:
                if frame.f_code.co_filename == self._path:
                    yield frame.f_locals
                    yield frame.f_globals
                frame = frame.f_back

    def interrupt(self, seconds: float) -> None:
        """End the script so many seconds from now, where its first thread is; a batch may be asked for in another."""
        signal.setitimer(signal.ITIMER_REAL, seconds)


class TrainingService(PrepareService):
    """Batches from the feed, until it ends."""

    def __init__(
        self, runtime: Any, job: Mapping[str, Any], path: str, names: tuple[str, ...], data: Any, clock: Any
    ) -> None:
        super().__init__(runtime, job, path, names)
        self._data, self._clock = data, clock
        self._feeds: dict[tuple[int, int], Iterator[Any]] = {}
        self._last: tuple[Any, Any] | None = None
        self._bytes = np.asarray(job["upstream"]["token_bytes"], dtype=np.int64)
        self._pace = Pace()
        self._tokens = 0
        self.given = 0
        self.seen: Any = None
        """The model that the script's source names, as it was at the last batch."""

    def time_budget(self) -> float:
        """Return a number that knows our clock."""
        return TimeBudget(self._clock, self._pace)

    def batch(self, batch: int, seq: int) -> tuple[Any, Any, int]:
        """Return the feed's next batch."""
        self.seen = look_up(self._names, self.spaces()) or self.seen
        self._pace.wants_batch()
        feed = self._feeds.setdefault((batch, seq), self._data.batches(batch, seq))
        found = next(feed, None)
        if found is None:
            self.over = True
            self.seen = self.seen or largest(self.runtime, self.spaces())
            if in_thread():
                self.interrupt(TAIL_SECONDS)  # the first thread may wait for a batch for ever
            raise NoMoreBatches("the training time is over")
        inputs, targets, info = found
        self.given += 1
        self._tokens += batch * seq
        self._last = (inputs, targets)
        return inputs, targets, info.epoch + 1

    def evaluate(self, model: Any) -> float:
        """Note the model, and estimate its bits per byte on the last training text: there is no other text here.

        Nothing rests on the estimate. It is what an honest script then prints. Raises `ScriptFault` for no model.
        """
        if not is_model(model):
            kind = type(model).__name__
            raise ScriptFault(f"evaluate_bpb is given a {kind}, which has no parameters: give it the model itself")
        self.model = model
        estimate = self._estimate(model)
        if self.over or self._clock.remaining <= 0:
            self.over = True
            self.interrupt(TAIL_SECONDS)
        return estimate

    def _estimate(self, model: Any) -> float:
        if self._last is None:
            return math.nan
        inputs, targets = self._last
        tokens = min(ESTIMATE_TOKENS, ESTIMATE_SECONDS / FORWARD_SHARE * self._speed())
        rows = max(1, int(tokens) // max(1, int(inputs.shape[1])))
        inputs, targets = inputs[:rows], targets[:rows]
        inner = unwrapped(model)
        with _no_gradients():
            losses = inner(beside(inner, inputs), beside(inner, targets), reduction="none")
        loss = self.runtime.to_numpy(losses).astype(np.float64)
        sizes = self._bytes[self.runtime.to_numpy(targets).astype(np.int64).ravel()]
        if loss.size not in (1, sizes.size):
            raise ScriptFault(f"the model's loss has {loss.size} numbers for {sizes.size} tokens (reduction='none')")
        each = np.broadcast_to(loss.ravel(), sizes.shape)
        total = int(sizes.sum())
        return float(each[sizes > 0].sum() / (math.log(2) * total)) if total else math.nan

    def _speed(self) -> float:
        """Return the tokens a second so far."""
        used = float(self._clock.budget) - float(self._clock.remaining)
        return self._tokens / used if used > 0 else math.inf


class CompilingService(TrainingService):
    """A few batches of random tokens and no text, so that a framework compiles (see `core.trial.compile_cache`)."""

    def time_budget(self) -> float:
        """Return a plain number: no time passes."""
        return float(self._clock.budget)

    def batch(self, batch: int, seq: int) -> tuple[Any, Any, int]:
        """Return random tokens, `WARM_BATCHES` times."""
        if self.given >= WARM_BATCHES:
            self.over = True
            raise NoMoreBatches("enough for compiling")
        self.given += 1
        inputs, targets = next(self._feeds.setdefault((batch, seq), self._data.warmup(batch, seq)))
        return inputs, targets, 1

    def evaluate(self, model: Any) -> float:
        """Note the model."""
        self.model = model
        return math.nan


class ScoringService(PrepareService):
    """Random tokens, until the script has used a batch: its model is then complete, and has learned nothing."""

    def __init__(self, runtime: Any, job: Mapping[str, Any], path: str, names: tuple[str, ...], kind: str) -> None:
        super().__init__(runtime, job, path, names)
        self._kind = kind
        self._random = np.random.default_rng(job["seed"])
        self._asked = 0
        self._hook: Any = None
        self.autocast: tuple[str, Any] | None = None
        """Device and type of the mixed precision in which the script calls its model; None without."""

    def batch(self, batch: int, seq: int) -> tuple[Any, Any, int]:
        """Return random tokens, or end the script when its model is known."""
        self._asked += 1
        if self.model is not None:
            raise Interrupted
        model = look_up(self._names, self.spaces())
        if model is None and self._asked > 1:
            model = largest(self.runtime, self.spaces())
        if model is not None:
            self._found(model)
        elif self._asked > MODEL_BATCHES:
            raise ScriptFault("the script, run again for scoring, takes batches without a model to use them on")
        rows = self._random.integers(0, self.job["vocab_size"], (batch, seq + 1)).astype(np.uint16)
        inputs, targets = (np.ascontiguousarray(part) for part in (rows[:, :-1], rows[:, 1:]))
        return self.runtime.to_device(inputs), self.runtime.to_device(targets), 1

    def evaluate(self, model: Any) -> float:
        """End the script: it has a model, whether it has asked for a batch or not."""
        self.model = self.model or unwrapped(model)
        raise Interrupted

    def disarm(self) -> None:
        """Leave the model as the script has made it."""
        if self._hook is not None:
            self._hook.remove()

    def _found(self, model: Any) -> None:
        """Take the model, and end the script: at once, or when it calls the model, to see in which precision."""
        self.model = unwrapped(model)
        torch = sys.modules.get("torch")
        waits = torch is not None and self._asked == 1 and isinstance(model, torch.nn.Module)
        if in_thread():
            self.interrupt(CALL_SECONDS if waits else TAIL_SECONDS)
        if torch is None or not waits:
            raise Interrupted

        def called(*_: Any) -> NoReturn:
            if torch.is_autocast_enabled(self._kind):
                self.autocast = (self._kind, torch.get_autocast_dtype(self._kind))
            raise Interrupted

        self._hook = model.register_forward_pre_hook(called)


class Pace:
    """Times of a script's steps. A step ends when the script compares something with TIME_BUDGET."""

    def __init__(self) -> None:
        self._asked: float | None = None
        self._wanted: float | None = None
        self._steps: deque[float] = deque(maxlen=STEPS)
        self._batches: deque[float] = deque(maxlen=STEPS)
        self._places: deque[float] = deque(maxlen=STEPS)
        """Seconds from the end of a step to each batch that is asked for in the next one."""

    def wants_batch(self) -> None:
        """Note that the script asks for a batch."""
        now = monotonic()
        if self._wanted is not None:
            self._batches.append(now - self._wanted)
        if self._asked is not None:
            self._places.append(now - self._asked)
        self._wanted = now

    def ends_step(self) -> None:
        """Note the end of a step."""
        now = monotonic()
        if self._asked is not None:
            self._steps.append(now - self._asked)
        self._asked = now

    def needed(self) -> float:
        """Return the seconds that one more step needs, so that it is not cut short where it asks for a batch.

        A batch is refused that is not expected to be used up in time. Upstream asks for the next step's at a step's
        end.
        """
        refused = max(self._places, default=0.0) + max(self._batches, default=0.0)
        return max(refused, max(self._steps, default=0.0))


class TimeBudget(float):
    """TIME_BUDGET in a train child: seconds of training, as a number that knows how many of them are used up.

    A script times itself, and leaves out its first steps. What it divides by this number or subtracts from it is read
    as our clock's time where it can be one, within a factor of two; and no comparison says that there is time left for
    a step when there is not. So a schedule ends when the training does. Our clock alone decides when that is.
    """

    _clock: Any
    _pace: Pace

    def __new__(cls, clock: Any, pace: Pace) -> TimeBudget:
        """Make the number of the clock's seconds."""
        made = super().__new__(cls, clock.budget)
        made._clock, made._pace = clock, pace
        return made

    def __rtruediv__(self, other: Any) -> Any:
        """Return the used share."""
        return self._ours(other) / float(self)

    def __sub__(self, other: Any) -> Any:
        """Return what remains."""
        return float(self) - self._ours(other)

    def __le__(self, other: Any) -> Any:
        """Answer `other >= TIME_BUDGET`."""
        return self._spent() or float(self) <= self._ours(other)

    def __lt__(self, other: Any) -> Any:
        """Answer `other > TIME_BUDGET`."""
        return self._spent() or float(self) < self._ours(other)

    def __ge__(self, other: Any) -> Any:
        """Answer `other <= TIME_BUDGET`."""
        return not self._spent() and float(self) >= self._ours(other)

    def __gt__(self, other: Any) -> Any:
        """Answer `other < TIME_BUDGET`."""
        return not self._spent() and float(self) > self._ours(other)

    __eq__ = float.__eq__
    __hash__ = float.__hash__

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        """Travel as a plain number."""
        return float, (float(self),)

    def _ours(self, seconds: Any) -> Any:
        """Return our clock's time in place of a script's, where the two are alike; anything else as it is."""
        if not isinstance(seconds, int | float):
            return seconds
        used = float(self) - self._clock.remaining
        return used if used > 0 and used / 2 <= seconds <= 2 * used else seconds

    def _spent(self) -> bool:
        """Tell whether another step would be late. Each question is taken for the end of a step."""
        remaining = float(self._clock.remaining)
        if remaining >= float(self):
            return False  # the clock has not started: this is no question about a step
        self._pace.ends_step()
        return remaining <= self._pace.needed()


class Output:
    """A script's standard output: passed on, and read for what it says of its steps and its metric."""

    def __init__(self, stream: Any, clock: Any, owner: AdoptedScript) -> None:
        self._stream, self._clock, self._owner = stream, clock, owner
        self._tail = ""

    def write(self, text: str) -> int:
        """Pass the text on."""
        count: int = self._stream.write(text)
        with contextlib.suppress(Exception):
            self._read(text)
        return count

    def writelines(self, lines: Any) -> None:
        """Pass lines on."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Be the real stream in all other ways."""
        return getattr(self._stream, name)

    def _read(self, text: str) -> None:
        seen = self._tail + text[-TAIL_CHARACTERS:]
        for found in CLAIM.finditer(seen):
            value = float(found[1])
            self._owner.claimed_bpb = value if math.isfinite(value) else None
        step = None
        for step in STEP.finditer(seen):
            self._clock.log(step=int(step[1]), loss=float(step[2]))
        self._tail = seen[step.end() if step else 0 :][-TAIL_CHARACTERS:]


class Loader:
    """The result of `make_dataloader`: yields inputs, targets and the epoch."""

    def __init__(self, service: PrepareService, batch: int, seq: int) -> None:
        self._service, self._batch, self._seq = service, batch, seq

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> tuple[Any, Any, int]:
        return self._service.batch(self._batch, self._seq)


class ScriptTokenizer:
    """The prepared corpus's tokenizer, with the methods of upstream's."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts
        self._text: Any = None
        self.bos_token_id: int = facts["bos_id"]

    def get_vocab_size(self) -> int:
        """Return the number of tokens."""
        return len(self._facts["token_bytes"])

    def get_bos_token_id(self) -> int:
        """Return the token that begins every document."""
        return self.bos_token_id

    def encode(self, text: Any, prepend: int | None = None, num_threads: int = 8) -> Any:
        """Encode a text as a list of tokens, or a list of texts as a list of lists."""
        before = [] if prepend is None else [int(prepend)]
        if isinstance(text, str):
            return before + self._tokens([text])[0]
        return [before + tokens for tokens in self._tokens(list(text))]

    def decode(self, ids: Any) -> str:
        """Return the text of tokens."""
        return str(self._open().decode(list(ids)))

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        return [tokens.tolist() for tokens in self._open().encode(texts)]

    def _open(self) -> Any:
        if self._text is None:
            from autoresearch.core.data.tokenizer import Tokenizer

            self._text = Tokenizer.open(Path(self._facts["tokenizer"]))
        return self._text


def stand_in(service: PrepareService, job: Mapping[str, Any]) -> types.ModuleType:
    """Make the module in the place of `prepare`. Its names are those of `OFFERED`."""
    facts = job["upstream"]

    class Tokenizer(ScriptTokenizer):
        """The tokenizer, found without a folder."""

        @classmethod
        def from_directory(cls, tokenizer_dir: Any = None) -> Tokenizer:
            """Return the tokenizer of this trial, whatever folder is named."""
            return cls(facts)

    def make_dataloader(*arguments: Any, **named: Any) -> Loader:
        """Return an iterator of batches: (tokenizer, batch, seq, split). Every split is training text."""
        given = dict(zip(("tokenizer", "B", "T", "split"), arguments, strict=False)) | named
        batch, seq = given.get("B", given.get("batch_size")), given.get("T", given.get("seq_len"))
        if batch is None or seq is None:
            raise TypeError("make_dataloader needs a tokenizer, a batch size, a sequence length and a split")
        return Loader(service, int(batch), int(seq))

    def evaluate_bpb(model: Any, *_: Any, **__: Any) -> float:
        """Take the model to score; return an estimate."""
        return service.evaluate(model)

    def get_token_bytes(*_: Any, **__: Any) -> Any:
        """Return the bytes of every token, an integer array (V,) on the device; 0 for special tokens."""
        return service.runtime.to_device(np.asarray([facts["token_bytes"]], dtype=np.uint16))[0]

    home = Path.home() / ".cache" / "autoresearch"
    vocab, seq = int(job["vocab_size"]), int(job["eval_seq_len"])
    values = {
        "MAX_SEQ_LEN": seq,
        "TIME_BUDGET": service.time_budget(),
        "EVAL_TOKENS": 2**19,
        "VOCAB_SIZE": vocab,
        "CACHE_DIR": str(home),
        "DATA_DIR": str(home / "data"),
        "TOKENIZER_DIR": str(home / "tokenizer"),
        "Tokenizer": Tokenizer,
        "make_dataloader": make_dataloader,
        "evaluate_bpb": evaluate_bpb,
        "get_token_bytes": get_token_bytes,
    }
    module = types.ModuleType("prepare", "The data and the metric of a trial of `ar adopt`.")
    module.__dict__.update((name, values[name]) for name in OFFERED)
    module.__dict__["__all__"] = list(OFFERED)
    return module


def look_up(names: tuple[str, ...], spaces: Any) -> Any:
    """Return the model that one of the dotted names stands for, in the first space that knows it; None for none."""
    for space in spaces:
        for name in names:
            first, *rest = name.split(".")
            value = space.get(first)
            for attribute in rest:
                value = getattr(value, attribute, None)
            if is_model(value):
                return value
    return None


def largest(runtime: Any, spaces: Any) -> Any:
    """Return the model with the most parameters that any name of the spaces stands for; None for none."""
    found: dict[int, tuple[int, Any]] = {}
    for value in (value for space in spaces for value in list(space.values()) if is_model(value)):
        with contextlib.suppress(Exception):
            found[id(value)] = (runtime.parameter_count(value), value)
    return max(found.values(), key=lambda pair: pair[0], default=(0, None))[1]


def is_model(value: Any) -> bool:
    """Tell whether a value looks like a model of PyTorch or MLX: it can be called and lists its parameters."""
    return not isinstance(value, type) and callable(value) and callable(getattr(value, "parameters", None))


def beside(model: Any, tokens: Any) -> Any:
    """Return tokens on the model's device, where a script of PyTorch's has put its model on another than ours."""
    if not hasattr(tokens, "to"):
        return tokens
    first = next(iter(model.parameters()), None)
    return tokens if first is None or first.device == tokens.device else tokens.to(first.device)


def unwrapped(model: Any) -> Any:
    """Return the module inside a compiled one: scoring has shapes of its own, and compiles nothing."""
    while (inner := (getattr(model, "_modules", None) or {}).get("_orig_mod")) is not None:
        model = inner
    return model


def follows_the_end(error: BaseException | None) -> bool:
    """Tell whether an exception is, or was raised while handling, that there are no more batches."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, NoMoreBatches):
            return True
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            waiting += [one.__cause__, one.__context__]
    return False


def in_thread() -> bool:
    """Tell whether this is another thread than the first, in which the script begins."""
    return threading.current_thread() is not threading.main_thread()


def _interrupt(*_: Any) -> NoReturn:
    raise Interrupted


def _no_gradients() -> contextlib.AbstractContextManager[Any]:
    """Return PyTorch's context without gradients where the script uses it; MLX records none unasked."""
    torch = sys.modules.get("torch")
    context: contextlib.AbstractContextManager[Any] = torch.no_grad() if torch is not None else contextlib.nullcontext()
    return context
