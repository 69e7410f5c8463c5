"""The code that is generated for an H100, read without one: bytes moved, launches, and what should not be in it.

The loss of the `h100` preset is traced with fake tensors through Dynamo, AOTAutograd and Inductor, forward and
backward. Bytes are those that Inductor counts for the arguments of each fused kernel; products and attention are
kernels of libraries and are counted apart. Attention is a stand-in with FlashAttention's interface. `--compile` also
makes machine code of every fused kernel and counts what its registers could not hold. Needs torch, triton and g++; runs
in half a minute of one core for two blocks, in more than one for nine, and in half a minute more for each kind of card.

    python -m benchmarks.codegen [--depth N] [--keep FOLDER] [--compile 90 100] [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import _pretend_h100
from benchmarks._compiled_kernels import CARDS, compiled, processor_seconds

BANDWIDTH = 2.75e12
"""Bytes a second that elementwise kernels reach on an H100: 82 % of its 3.35 TB/s."""
KERNEL = re.compile(r"^(\w+) = async_compile\.triton\('\w+', '''(.*?)''', device_str", re.S | re.M)
LAUNCH = re.compile(r"^\s+(\w+)\.run\(", re.M)
LIBRARY = re.compile(r"^\s+(extern_kernels\.\w+|torch\.ops\.[\w.]+)\(|= (torch\.ops\.[\w.]+)\(", re.M)
SLOW = re.compile(r"(?:libdevice|tl_math)\.(pow|sin|cos)\b")
BUFFER = re.compile(r"empty_strided_cuda\(\(([\d, ]+)\), \([\d, ]+\), torch\.(\w+)\)")

LIMITS: Mapping[int, tuple[float, int]] = {2: (21.0, 62), 9: (76.0, 218)}
"""Blocks -> most GB that fused kernels may move in a micro-step, and most launches of them. To be lowered."""
SPILL_LIMIT = 128
"""Bytes of a thread that a kernel may spill from its registers to memory."""
CODE_SECONDS = 180.0
"""Processor seconds for tracing and generating, at most. Measured on a busy core: 17 for two blocks, 56 for nine."""
KERNEL_SECONDS = 60.0
"""Processor seconds for compiling all kernels for one card, at most. Measured there: 8 for two blocks, 21 for nine."""


@dataclass
class Report:
    """What was found in the generated code of one micro-step."""

    graphs: int = 0
    """Graphs that Dynamo made of the loss: more than one means a break in the middle of the step."""
    launches: int = 0
    """Launches of fused kernels."""
    library_calls: int = 0
    gigabytes: float = 0.0
    """GB that the fused kernels read and write."""
    slow: dict[str, list[str]] = field(default_factory=dict)
    """Kernels with pow, sin or cos in them, which take dozens of instructions an element."""
    wide: list[str] = field(default_factory=list)
    """Float32 buffers of the size of a chunk of logits, with their shapes."""
    largest: list[tuple[float, str]] = field(default_factory=list)
    """GB over all launches and name of the kernels that move most."""
    code_seconds: float = 0.0
    """Processor seconds of tracing and generating."""
    kernel_seconds: dict[int, float] = field(default_factory=dict)
    """Compute capability, times ten -> processor seconds of compiling every kernel; nearly none from Triton's cache."""
    kernels: dict[int, int] = field(default_factory=dict)
    """Compute capability -> kernels that were compiled for it."""
    spills: dict[str, int] = field(default_factory=dict)
    """Kernel, with its card -> bytes of a thread that did not fit registers, where there are any."""

    @property
    def milliseconds(self) -> float:
        """Estimated time of the fused kernels on an H100."""
        return 1e3 * self.gigabytes * 1e9 / BANDWIDTH


def own_bytes(kernel: str, direction: str, chunk_elements: int, hidden_elements: int) -> int | None:
    """Bytes that a kernel of the train file's own moves, which Inductor does not count; None for any other kernel.

    The loss reads and writes a chunk of logits. A tile of the MLP belongs to a product, whose operands are not counted
    here either; beyond them the backward pass reads the hidden layer. All of it is in bf16.
    """
    if kernel.startswith("cross_entropy_row"):
        return 2 * 2 * chunk_elements
    if kernel.startswith("mlp_tile"):
        return 2 * hidden_elements if direction == "backward" else 0
    return None


def read_code(codes: Mapping[str, str], chunk_elements: int, hidden_elements: int = 0) -> Report:
    """Read the generated code by name: "forward", "backward"; elements of a chunk of logits and of a hidden layer."""
    report, moved = Report(), dict[str, float]()
    for name, code in codes.items():
        sizes = {}
        for match in KERNEL.finditer(code):
            kernel, body = match.groups()
            counted = re.search(r"'kernel_num_gb': ([0-9.e+-]+)", body)
            own = own_bytes(kernel, name, chunk_elements, hidden_elements)
            sizes[kernel] = own / 1e9 if own is not None else float(counted.group(1)) if counted else 0.0
            if found := sorted(set(SLOW.findall(body))):
                report.slow[f"{name}: {kernel}"] = found
        for kernel in LAUNCH.findall(code):
            report.launches += 1
            moved[f"{name}: {kernel}"] = moved.get(f"{name}: {kernel}", 0.0) + sizes.get(kernel, 0.0)
        report.library_calls += len(LIBRARY.findall(code))
        for shape, dtype in BUFFER.findall(code):
            elements = 1
            for size in shape.strip(", ").split(","):
                elements *= int(size)
            if dtype == "float32" and elements == chunk_elements:
                report.wide.append(f"{name}: ({shape})")
    report.gigabytes = sum(moved.values())
    report.largest = sorted(((round(gb, 3), name) for name, gb in moved.items()), reverse=True)[:12]
    return report


def faults(report: Report, limits: tuple[float, int] = LIMITS[2]) -> list[str]:
    """Say in words what is wrong with a report, with limits of gigabytes and launches."""
    gigabytes, launches = limits
    found = [f"{report.graphs} graphs instead of one"] if report.graphs != 1 else []
    if report.gigabytes > gigabytes:
        found.append(f"fused kernels move {report.gigabytes:.1f} GB; the limit is {gigabytes:g}")
    if report.launches > launches:
        found.append(f"{report.launches} launches of fused kernels; the limit is {launches}")
    found += [f"{', '.join(functions)} in {kernel}" for kernel, functions in report.slow.items()]
    found += [f"{name} spills {size} bytes a thread" for name, size in report.spills.items() if size > SPILL_LIMIT]
    if report.code_seconds > CODE_SECONDS:
        found.append(f"generating took {report.code_seconds:.0f} s of processor time; the limit is {CODE_SECONDS:g}")
    for card, seconds in report.kernel_seconds.items():
        if seconds > KERNEL_SECONDS:
            found.append(f"compiling for sm_{card} took {seconds:.0f} s; the limit is {KERNEL_SECONDS:g}")
    return found + [f"a float32 buffer of a chunk of logits: {buffer}" for buffer in report.wide]


def train_file(path: Path, changes: Mapping[str, Any]) -> ModuleType:
    """Return the train file at the preset `h100`, with these constants changed."""
    from autoresearch.core.config import load_presets
    from autoresearch.core.trainfile.constants import write_constants, write_preset

    preset = load_presets(Path(__file__).parents[1] / "backends" / "cuda" / "presets.toml")["h100"]
    source = write_constants(write_preset(path.read_text(encoding="utf-8"), preset), changes)
    module = ModuleType("codegen_train_file")
    sys.modules[module.__name__] = module
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def generate(module: ModuleType) -> tuple[int, dict[str, str]]:
    """Return the number of graphs, and the code of forward and backward. `pretend` must have been called."""
    import torch
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner
    from torch._subclasses.fake_tensor import FakeTensorMode

    from autoresearch.backends.contract import Spec

    codes: dict[str, str] = {}
    graphs = 0

    def read(graph: Any, inputs: Any, **options: Any) -> Callable[..., Any]:
        with kept(codes, "backward" if options.get("is_backward") else "forward"):
            compile_fx_inner(graph, inputs, **options)
        [last] = [node for node in graph.graph.nodes if node.op == "output"]
        wanted = [one.meta["val"] if hasattr(one, "meta") else one for one in last.args[0]]

        def stand_in(_: Any) -> list[Any]:
            """Answer with fake tensors of the right shapes, so that the backward pass is traced too."""
            return [
                torch.empty_strided(one.size(), one.stride(), dtype=one.dtype, device=one.device)
                if isinstance(one, torch.Tensor)
                else one
                for one in wanted
            ]

        stand_in._boxed_call = True  # type: ignore[attr-defined]
        return stand_in

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return compile_fx(graph, inputs, inner_compile=read)

    rows, length = module.DEVICE_BATCH_ROWS, module.SEQ_LEN
    module.initialise = lambda *_: None  # type: ignore[attr-defined]  # draws numbers that nobody reads
    module.GPT.to = lambda model, *_: model  # type: ignore[attr-defined]
    with torch.device("meta"):
        model = module.build(Spec(module.VOCAB_SIZE, length, seed=0, device="cuda", tier="h100"))
    model.attend = stand_in_for_flash
    fuse = getattr(module, "fused_mlp", None)  # chosen by measuring on a GPU; older files have none
    for block in model.blocks if fuse is not None else ():
        block.mlp.forward = partial(fuse, block.mlp)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in model.modules():  # tensors without memory become fake ones on the card
            for tensors in (part._parameters, part._buffers):
                for name, one in tensors.items():
                    if one is not None:
                        fake = torch.empty_strided(one.size(), one.stride(), dtype=one.dtype, device="cuda")
                        tensors[name] = torch.nn.Parameter(fake) if isinstance(one, torch.nn.Parameter) else fake
        tokens = torch.zeros(rows, length, dtype=torch.int64, device="cuda")
        # As `train` does: rows of n-grams are looked up outside of the graph, where gradients may be sparse.
        found = tuple(rows if rows is None else rows.detach().requires_grad_() for rows in model.look_up(tokens))
        torch.compile(model.loss, backend=backend, dynamic=False)(tokens, tokens, found).backward()
    return graphs, codes


def stand_in_for_flash(q: Any, k: Any, v: Any, window: int, **options: Any) -> Any:
    """Attend by an operator that Inductor leaves to a library, as it does with FlashAttention-3."""
    import torch

    scale = options.get("scale", 1.0)
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True, False, scale=scale)[0]


@contextmanager
def kept(codes: dict[str, str], name: str) -> Iterator[None]:
    """Keep the generated code under that name, and end the compilation there."""
    from unittest import mock

    from torch._inductor.graph import GraphLowering

    class Kept(BaseException):
        """Ends a compilation whose code is there. No handler for ordinary errors takes it."""

    def keep(graph: GraphLowering) -> None:
        code, _ = graph.codegen()
        codes[name] = code.value
        raise Kept

    try:
        with mock.patch.object(GraphLowering, "compile_to_module", keep):
            yield
    except Kept:
        return


def measure(path: Path, changes: Mapping[str, Any], keep: Path | None = None, cards: Sequence[int] = ()) -> Report:
    """Return the report on a train file, from a process that pretends; its kernels are compiled for `cards`."""
    module, began = train_file(path, changes), processor_seconds()
    graphs, codes = generate(module)
    code_seconds = processor_seconds() - began
    for name, code in codes.items() if keep else ():
        assert keep is not None
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{name}.py").write_text(code, encoding="utf-8")
    hidden = module.DEVICE_BATCH_ROWS * module.SEQ_LEN * module.MLP_RATIO * module.DIM
    report = read_code(codes, module.LOSS_CHUNK_TOKENS * module.VOCAB_SIZE, hidden)
    report.graphs, report.code_seconds = graphs, code_seconds
    for card in cards:
        kernels = list(compiled(codes, card))
        report.kernels[card], report.kernel_seconds[card] = len(kernels), sum(kernel.seconds for kernel in kernels)
        report.spills |= {f"sm_{card} {kernel.name}": kernel.spilled for kernel in kernels if kernel.spilled}
    return report


def run() -> list[dict[str, Any]]:
    """Rows of the shipped train file at the `h100` preset, from a process of its own."""
    if (why := _pretend_h100.unavailable()) is not None:
        raise RuntimeError(why)
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "report.json")
        subprocess.run([sys.executable, "-m", "benchmarks.codegen", "--answer", str(answer)], check=True)
        found = json.loads(answer.read_text(encoding="utf-8"))
    note = "h100, one micro-step of 131,072 tokens"
    return [
        {"name": "moved by fused kernels", "median": found["gigabytes"], "unit": "GB", "note": note},
        {"name": "their time by arithmetic", "median": found["milliseconds"], "unit": "ms", "note": "at 2.75 TB/s"},
        {"name": "launches of fused kernels", "median": found["launches"], "unit": "", "note": note},
        {"name": "calls of libraries", "median": found["library_calls"], "unit": "", "note": note},
        {"name": "kernels with pow, sin or cos", "median": len(found["slow"]), "unit": "", "note": ""},
        {"name": "float32 buffers of a chunk of logits", "median": len(found["wide"]), "unit": "", "note": ""},
    ]


def main() -> int:
    """Write the report as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codegen", description=__doc__)
    parser.add_argument("--file", type=Path, default=Path(__file__).parents[1] / "backends" / "cuda" / "train.py")
    parser.add_argument("--depth", type=int, help="blocks, instead of the preset's")
    parser.add_argument("--keep", type=Path, help="folder for the generated code")
    parser.add_argument("--compile", type=int, nargs="+", default=[], choices=sorted(CARDS), help="cards, as in sm_90")
    parser.add_argument("--check", action="store_true", help="fail when a limit is exceeded; needs --depth 2 or 9")
    parser.add_argument("--answer", type=Path, help="file for the report, instead of standard output")
    options = parser.parse_args()
    if options.check and options.depth not in LIMITS:
        parser.error(f"limits are known for --depth {', '.join(map(str, LIMITS))}")
    if (why := _pretend_h100.unavailable()) is not None:
        print(f"no code can be generated here: {why}", file=sys.stderr)
        return 1
    _pretend_h100.pretend()
    report = measure(options.file, {"DEPTH": options.depth} if options.depth else {}, options.keep, options.compile)
    text = json.dumps({**asdict(report), "milliseconds": report.milliseconds}, indent=1)
    options.answer.write_text(text, encoding="utf-8") if options.answer else print(text)
    found = faults(report, LIMITS[options.depth]) if options.check else []
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
