"""The checks of `ar doctor` on GPUs: nodes, libraries, other users of a card, and what a sandboxed child sees."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from autoresearch.core.cli.checks import CheckResult
from autoresearch.core.errors import ArError
from autoresearch.core.printable import printable_line

SHADOWING = ("libcudnn*.so*", "libcublas*.so*", "libcudart.so*", "libnccl.so*", "libnvrtc.so*")
"""Libraries that PyTorch brings itself. Another copy on LD_LIBRARY_PATH is loaded in place of its own."""
ASK_SECONDS = 30.0
"""Longest wait for nvidia-smi, in seconds."""


def check_gpu(backend: str, source: str | None) -> Iterator[CheckResult]:
    """Yield the results for this machine's cards and for what a trial makes of them; `source` is the train file."""
    yield from check_nodes()
    yield from check_shadowing(os.environ)
    yield from check_users()
    yield from check_training(backend, source)


def check_training(backend: str, source: str | None) -> Iterator[CheckResult]:
    """Let a child in the sandbox of trials try what training needs: attention, compiler, driver, memory."""
    from autoresearch.core.trial.device import examine

    try:
        remarks = examine(backend, source)
    except ArError as error:
        yield CheckResult("training", "warn", error.message, error.fix)
        return
    for remark in remarks:  # the train file has run in that child, so the words are made safe to print
        fix = printable_line(remark.fix)[:300] if remark.fix else None
        yield CheckResult(printable_line(remark.subject)[:20], remark.status, printable_line(remark.detail)[:500], fix)


def check_nodes(devices: Path = Path("/dev")) -> Iterator[CheckResult]:
    """Check the nodes of NVIDIA cards: CUDA needs nvidia-uvm, which a driver makes when it is first used by root."""
    cards = sorted(devices.glob("nvidia[0-9]*"))
    if not cards and not (devices / "nvidiactl").exists():
        return
    found = f"{len(cards)} card{'s' * (len(cards) != 1)}"
    if not cards:
        yield CheckResult(
            "gpu nodes", "warn", f"{devices}/nvidiactl is there, and no card", "pass one to the container"
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        yield CheckResult("gpu nodes", "warn", f"{found}, hidden by CUDA_VISIBLE_DEVICES", "unset it")
    elif not (devices / "nvidia-uvm").exists():
        yield CheckResult(
            "gpu nodes",
            "fail",
            f"{found}, and no {devices}/nvidia-uvm: a sandboxed trial cannot make it and would use the processor",
            "nvidia-modprobe -u -c 0, or run nvidia-smi once as root",
        )
    else:
        yield CheckResult("gpu nodes", "pass", f"{found}, nvidia-uvm")


def check_shadowing(variables: Mapping[str, str]) -> Iterator[CheckResult]:
    """Check LD_LIBRARY_PATH for copies of libraries that PyTorch brings."""
    copies = [
        found
        for folder in variables.get("LD_LIBRARY_PATH", "").split(":")
        if folder
        for pattern in SHADOWING
        for found in sorted(Path(folder).glob(pattern))
    ]
    if copies:
        more = f" and {len(copies) - 1} more" if len(copies) > 1 else ""
        yield CheckResult(
            "libraries",
            "warn",
            f"{copies[0]}{more} on LD_LIBRARY_PATH would be loaded in place of PyTorch's own",
            f"take {copies[0].parent} out of LD_LIBRARY_PATH",
        )


def check_users() -> Iterator[CheckResult]:
    """List other programs that use a card, by nvidia-smi: they cost memory and speed, and make scores noisy."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return
    command = [program, "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield CheckResult("gpu users", "warn", f"nvidia-smi does not answer: {error}", "look at the driver")
        return
    if answer.returncode:
        said = (answer.stdout + answer.stderr).strip().splitlines()[:1] or ["no reason given"]
        yield CheckResult("gpu users", "warn", f"nvidia-smi fails: {said[0]}", "look at the driver")
        return
    users = [line.strip() for line in answer.stdout.splitlines() if line.strip()]
    if users:
        detail = f"other programs use the card: {'; '.join(users[:4])}"
        yield CheckResult(
            "gpu users", "warn", detail, "end them, or give the loop another card by CUDA_VISIBLE_DEVICES"
        )
    else:
        yield CheckResult("gpu users", "pass", "no other program uses the card")
