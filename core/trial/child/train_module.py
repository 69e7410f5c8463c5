"""A train file as a module, and its model: made the same way in training, scoring and audit."""

from __future__ import annotations

import io
import linecache
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.backends.contract import Device, Spec
from autoresearch.core.trial.child.channel import Stage

if TYPE_CHECKING:
    from autoresearch.core.adopt.stand_in import AdoptedScript

MODULE_NAME = "train_file"


def load_train_file(path: str) -> types.ModuleType:
    """Execute a train file as a module of its own, with its lines known to tracebacks and to `inspect`."""
    source = Path(path).read_text(encoding="utf-8")
    module = types.ModuleType(MODULE_NAME)
    module.__file__ = path
    sys.modules[MODULE_NAME] = module  # dataclasses look their module up
    linecache.cache[path] = (len(source), None, lines_of(source), path)
    # In no folder of the search path, so that it can import nothing that lies beside it.
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def lines_of(source: str) -> list[str]:
    """Return the lines of a source with their ends, as Python counts them: a form feed in a line ends none."""
    return io.StringIO(source, newline=None).readlines()


def adopt(job: dict[str, Any], runtime: Any) -> AdoptedScript:
    """Read a script in upstream's form, to be used as a train file is."""
    from autoresearch.core.adopt.stand_in import AdoptedScript

    return AdoptedScript(job["source"], job, runtime)


def make_spec(job: dict[str, Any], device: Device) -> Spec:
    """Return the specification for `build`, from the parent's job and the device that the runtime found."""
    return Spec(
        vocab_size=job["vocab_size"],
        eval_seq_len=job["eval_seq_len"],
        seed=job["seed"],
        device=device.kind,
        tier=job["tier"],
    )


def build_model(job: dict[str, Any], runtime: Any, device: Device, stage: Stage) -> tuple[Any, Any]:
    """Run the train file and its `build`; return the module and the model.

    An adopted script has an object in the place of the module.
    """
    stage.name = "import"
    module = adopt(job, runtime) if "upstream" in job else load_train_file(job["source"])
    runtime.seed(job["seed"])
    stage.name = "build"
    return module, module.build(make_spec(job, device))
