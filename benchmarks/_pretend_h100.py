"""A PyTorch that believes in one H100, on a machine without any: enough of it to generate code, nothing to run it.

PyTorch's CPU build has no device guard for CUDA, without which a tensor of that device cannot even be described. A
guard that does nothing is compiled against PyTorch's headers, once for each version. What PyTorch and Triton ask of a
card's driver is answered from H100's data sheet. Everything works on fake tensors.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GUARD = """
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
using c10::Device; using c10::DeviceIndex; using c10::DeviceType; using c10::Stream;
namespace {
// Answers as a process with one idle card would; there is nothing to switch, wait for or destroy.
struct OneIdleCard final : c10::impl::DeviceGuardImplInterface {
  static constexpr DeviceType static_type = DeviceType::CUDA;
  static Device card() { return Device(DeviceType::CUDA, 0); }
  static Stream stream() { return Stream(Stream::DEFAULT, card()); }
  DeviceType type() const override { return DeviceType::CUDA; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  Device getDevice() const override { return card(); }
  Device exchangeDevice(Device) const override { return card(); }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const override { return stream(); }
  Stream exchangeStream(Stream) const override { return stream(); }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
};
const c10::impl::DeviceGuardImplRegistrar registered(DeviceType::CUDA, new OneIdleCard());
}
// The engine of the backward pass asks these before it makes its threads. PyTorch finds them by their name.
struct CUDAHooks : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};
namespace at {
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks)
}
"""
PROPERTIES = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3",
    major=9,
    minor=0,
    total_memory=80 * 2**30,
    multi_processor_count=132,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    regs_per_multiprocessor=65536,
    warp_size=32,
    L2_cache_size=50 * 2**20,
    shared_memory_per_block=48 * 2**10,
    shared_memory_per_block_optin=227 * 2**10,
    shared_memory_per_multiprocessor=228 * 2**10,
    gcnArchName="",
    clock_rate=1_980_000,
    memory_clock_rate=2_619_000,
    memory_bus_width=5120,
    is_integrated=0,
)
"""As `torch.cuda.get_device_properties` gives them, from NVIDIA's data sheet and Hopper's white paper."""


def unavailable() -> str | None:
    """Say why no code can be generated here; None when it can."""
    for name in ("torch", "triton"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    return None


def pretend() -> None:
    """Let this process's PyTorch find an H100, for good. Raises `RuntimeError` once PyTorch is imported."""
    if "torch" in sys.modules:
        raise RuntimeError("PyTorch has looked for its devices already; pretend before importing it")
    ctypes.CDLL(str(compiled_guard()), ctypes.RTLD_GLOBAL)
    answer_for_the_driver()
    answer_for_triton()
    quieten_inductor()


def compiled_guard() -> Path:
    """Return the guard's library, compiled now unless this version of PyTorch has one already."""
    found = importlib.util.find_spec("torch")
    assert found is not None
    assert found.origin is not None
    torch_folder = Path(found.origin).parent
    mark = hashlib.sha256(f"{torch_folder} {importlib.metadata.version('torch')} {GUARD}".encode()).hexdigest()[:12]
    library = Path(tempfile.gettempdir(), f"pretend-h100-{os.getuid()}", f"guard-{mark}.so")
    if not library.exists():
        library.parent.mkdir(mode=0o700, exist_ok=True)
        source = library.with_suffix(".cpp")
        source.write_text(GUARD, encoding="utf-8")
        fresh = library.with_suffix(f".{os.getpid()}")
        include = [f"-I{torch_folder / 'include'}", f"-I{torch_folder / 'include/torch/csrc/api/include'}"]
        libraries = [f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch_folder / 'lib'}"]
        command = ["g++", "-std=c++20", "-shared", "-fPIC", *include, str(source), *libraries, "-o", str(fresh)]
        subprocess.run(command, check=True)
        fresh.replace(library)
    return library


def answer_for_the_driver() -> None:
    """Replace what asks the driver: `torch.cuda`, its device interface, and the binding's own functions."""
    import torch
    import torch._dynamo.device_interface as interfaces

    def always(value: Any) -> Any:
        return lambda *_, **__: value

    answers: dict[str, Any] = {
        "is_available": True,
        "is_initialized": True,
        "is_bf16_supported": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_properties": PROPERTIES,
        "get_device_capability": (9, 0),
        "get_device_name": PROPERTIES.name,
        "synchronize": None,
        "_lazy_init": None,
        "_exchange_device": 0,
        "_maybe_exchange_device": 0,
        "set_rng_state": None,
    }
    for name, value in answers.items():
        setattr(torch.cuda, name, always(value))
    torch.cuda.get_rng_state = torch.cuda.random.get_rng_state = lambda *_: torch.get_rng_state()  # type: ignore[assignment]
    torch.cuda.random.set_rng_state = always(None)
    interface = interfaces.CudaInterface
    shared = {name: answers[name] for name in ("is_available", "device_count", "current_device", "synchronize")}
    extra = {"get_device_properties": PROPERTIES, "get_compute_capability": 90, "exchange_device": 0}
    for name, value in {**shared, **extra, "maybe_exchange_device": 0}.items():
        setattr(interface, name, staticmethod(always(value)))
    interface.Worker.get_device_properties = staticmethod(always(PROPERTIES))  # type: ignore[method-assign]
    interface.Worker.current_device = staticmethod(always(0))  # type: ignore[method-assign]
    binding = {
        "_cuda_getDevice": 0,
        "_cuda_getDeviceCount": 1,
        "_cuda_isInBadFork": False,
        "_cuda_isCurrentStreamCapturing": False,
        "_cuda_getCurrentStream": (0, 0, 0),
        "_cuda_getCurrentRawStream": 0,
        "_accelerator_getDeviceIndex": 0,
    }
    for name, value in binding.items():
        setattr(torch._C, name, always(value))
    torch.accelerator.current_device_index = torch.accelerator.device_count = always(0)  # type: ignore[assignment]
    torch.version.cuda = "13.0"


def answer_for_triton() -> None:
    """Give Triton a driver that only knows its target: compute capability 9.0."""
    import torch
    import triton
    from torch._inductor.runtime import triton_helpers
    from triton.backends.compiler import GPUTarget

    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_active_torch_device=lambda: torch.device("cuda", 0),
        get_device_capability=lambda device=0: (9, 0),
        get_benchmarker=lambda: None,
        binary_ext="cubin",
        utils=SimpleNamespace(),
    )
    triton.runtime.driver.set_active(driver)
    triton_helpers.set_driver_to_gpu = lambda: None


def quieten_inductor() -> None:
    """Switch off what would run a kernel or read a cache, and let it count the bytes of each kernel."""
    import torch._functorch.config
    import torch._inductor.config as config
    from torch._inductor.codegen.simd import SIMDKernel
    from torch._inductor.fx_passes import joint_graph, post_grad

    config.fx_graph_cache = False
    config.compile_threads = 1
    config.use_static_cuda_launcher = False  # it throws the machine code away that `_compiled_kernels` reads
    config.profile_bandwidth = True  # writes "kernel_num_gb" beside each kernel
    config.joint_graph_constant_folding = False
    SIMDKernel.estimate_kernel_num_bytes = bytes_of_kernel  # type: ignore[method-assign]
    torch._functorch.config.enable_autograd_cache = False
    for module in (joint_graph, post_grad):
        module.lazy_init = lambda *_, **__: None  # traces patterns on a real device
    joint_graph.constant_fold_uniform_value = lambda graph: None


def bytes_of_kernel(kernel: Any) -> int:
    """Bytes that a fused kernel reads and writes, for a generated kernel about to be written.

    Inductor's own count takes a buffer that is read at four places of a row four times, although a row's cache lines
    come from memory once. Here every argument counts once for each way to index it, never with more than its size, and
    one that is written in place counts as read only where the kernel reads it.
    """
    from torch._inductor.dependencies import MemoryDep
    from torch._inductor.utils import get_dtype_size
    from torch._inductor.virtualized import V

    def number(expression: Any) -> int:
        return int(V.graph.sizevars.optimization_hint(expression))

    # Of a kernel without a loop, loads become part of the body only after this was called.
    code = "".join(part.getvalue() for part in (kernel.body, kernel.loads, kernel.compute))
    in_place = list(dict.fromkeys(one.inner_name for one in kernel.args.inplace_buffers.values()))
    accesses, elements = kernel.features.buf_accesses(), 1
    for size in kernel.numels.values():
        elements *= number(size)
    total = 0
    for position, name in enumerate(kernel.args.python_argdefs()[1]):
        if name in accesses:
            whole = number(V.graph.get_numel(name))
            # An access without an index, of a lookup for example, may reach all of the buffer.
            ways = len({access.index if isinstance(access, MemoryDep) else whole for access in accesses[name]})
            size = min(whole, max(ways, 1) * elements) * get_dtype_size(V.graph.get_dtype(name))
            total += size * (2 if position < len(in_place) and f"tl.load({in_place[position]} " in code else 1)
    return total
