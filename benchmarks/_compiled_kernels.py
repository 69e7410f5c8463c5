"""Fused kernels from generated code, compiled to machine code by Triton and NVIDIA's ptxas; nothing is run.

Triton's package brings ptxas and cuobjdump, so this needs no CUDA and no GPU. The process must have called
`_pretend_h100.pretend`. What spills is memory that ptxas had to use in place of registers.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = re.compile(r"^(\w+) = async_compile\.triton\('(\w+)', '''(.*?)''', device_str", re.S | re.M)
CARDS: Mapping[int, str] = {90: "Hopper", 100: "Blackwell"}
"""Compute capability, times ten, of the cards that kernels are compiled for."""
USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")


@dataclass(frozen=True)
class Kernel:
    """One compiled kernel with one of its configurations."""

    name: str
    capability: int
    registers: int
    """Registers of a thread, at most 255."""
    spilled: int
    """Bytes of a thread that did not fit registers."""
    seconds: float
    """Processor seconds for compiling it, children included; nearly none where Triton's cache had it."""


def compiled(codes: Mapping[str, str], capability: int) -> Iterator[Kernel]:
    """Compile each distinct kernel with its first configuration.

    The others are tried in turn when the kernel first runs, so the fastest one counts there. Raises what Triton or
    ptxas raises for a kernel that does not compile.
    """
    import triton

    [folder] = importlib.util.find_spec("triton").submodule_search_locations  # type: ignore[union-attr]
    cuobjdump = Path(folder, "backends/nvidia/bin/cuobjdump")
    for name, function, source in distinct(codes):
        began = processor_seconds()
        with tempfile.TemporaryDirectory() as temporary:
            tuner = loaded(Path(temporary, f"{name}.py"), function, for_card(source, capability))
            cubin = Path(temporary, "kernel.cubin")
            [binary] = [tuner._precompile_config(one).kernel for one in tuner.configs[:1]]
            cubin.write_bytes(binary.asm["cubin"])
            said = subprocess.run(
                [str(cuobjdump), "--dump-resource-usage", str(cubin)], capture_output=True, text=True, check=True
            ).stdout
        usage = USAGE.search(said)
        if usage is None:
            raise RuntimeError(f"cuobjdump of Triton {triton.__version__} does not say what {name} uses: {said}")
        yield Kernel(name, capability, int(usage[1]), int(usage[2]), processor_seconds() - began)


def distinct(codes: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the function's name and the source of every kernel, equal ones once."""
    seen = set()
    for direction, code in codes.items():
        for name, function, source in SOURCE.findall(code):
            plain = source.replace(name, "")
            if plain not in seen:
                seen.add(plain)
                yield f"{direction}_{name}", function, source


def for_card(source: str, capability: int) -> str:
    """Rewrite what the source says about the card's compute capability."""
    return source.replace("cc=90, major=9,", f"cc={capability}, major={capability // 10},")


def loaded(path: Path, function: str, source: str) -> Any:
    """Import a kernel's source from a file, as Inductor does, and return what tunes and compiles it."""
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return getattr(module, function)


def processor_seconds() -> float:
    """Return the processor time of this process and of the children it has waited for."""
    import resource

    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
