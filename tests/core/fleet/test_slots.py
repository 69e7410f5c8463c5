"""Devices shared out: each trial sees its own, and no two loops share one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from null_trials import request

from autoresearch.core.data.manifest import Prepared
from autoresearch.core.errors import PrerequisiteError, UsageError
from autoresearch.core.events import Event, FirstBatch
from autoresearch.core.fleet.local import LocalExecutor
from autoresearch.core.fleet.slots import Claim, Slot, cpu_slots, cuda_slots, find_slots
from autoresearch.core.trial.device import usable_cores
from autoresearch.core.trial.request import Budget
from autoresearch.core.trial.sandbox.environment import child_variables

SAYS = """
import os, sys
sys.stderr.write(f"ON {os.environ['CUDA_VISIBLE_DEVICES']} {sorted(os.sched_getaffinity(0))}\\n")
"""
LISTED = "0, GPU-aaaa, NVIDIA H100\n1, GPU-bbbb, NVIDIA A10\n2, GPU-cccc, NVIDIA H100\n"


def test_every_gpu_of_the_first_ones_model_is_a_slot_that_sees_no_other() -> None:
    slots = cuda_slots(LISTED)
    assert [slot.environment for slot in slots] == [
        (("CUDA_VISIBLE_DEVICES", "GPU-aaaa"),),
        (("CUDA_VISIBLE_DEVICES", "GPU-cccc"),),
    ]
    assert [slot.label for slot in slots] == ["NVIDIA H100 0", "NVIDIA H100 2"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,0", ["cuda-GPU-cccc", "cuda-GPU-aaaa"]),
        ("GPU-bb", ["cuda-GPU-bbbb"]),
        ("", []),
        ("0,9,2", ["cuda-GPU-aaaa"]),
    ],
)
def test_the_users_choice_of_gpus_holds(visible: str, expected: list[str]) -> None:
    assert [slot.name for slot in cuda_slots(LISTED, visible)] == expected


def test_cores_and_memory_are_shared_out_evenly_and_disjointly() -> None:
    slots = cpu_slots(3, range(8), 30_000)
    assert sorted(core for slot in slots for core in slot.cores) == list(range(8))
    assert [len(slot.cores) for slot in slots] == [2, 3, 3]
    assert all(dict(slot.environment)["OMP_NUM_THREADS"] == str(len(slot.cores)) for slot in slots)
    assert sum(slot.memory_mb or 0 for slot in slots) <= 30_000
    assert len(cpu_slots(None, range(8), 100_000)) == 4
    assert len(cpu_slots(None, range(8), 9_000)) == 1
    with pytest.raises(UsageError, match="there are 8 cores"):
        cpu_slots(9, range(8), 30_000)


def test_one_metal_device_is_one_slot() -> None:
    assert len(find_slots("metal", None)) == 1
    with pytest.raises(UsageError, match="there are 1 devices"):
        find_slots("metal", 2)


def test_two_loops_never_share_a_slot(tmp_path: Path) -> None:
    slots = [Slot("a", "one"), Slot("b", "two"), Slot("c", "three")]
    first = Claim(slots, tmp_path, 2)
    second = Claim(slots, tmp_path, None)
    assert [slot.name for slot in first.slots + second.slots] == ["a", "b", "c"]
    with pytest.raises(PrerequisiteError, match="another loop uses one, two, three"):
        Claim(slots, tmp_path, 1)
    first.release()
    third = Claim(slots, tmp_path, 1)
    assert third.slots == [slots[0]]
    second.release()
    third.release()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to cores")
def test_trials_run_side_by_side_each_on_its_own_slot(prepared: Prepared, tmp_path: Path) -> None:
    cores = usable_cores()
    slots = [
        Slot(f"s{i}", f"slot {i}", (("CUDA_VISIBLE_DEVICES", f"GPU-{i}"),), (cores[i % len(cores)],)) for i in range(2)
    ]
    executor = LocalExecutor(slots)
    both = threading.Barrier(2, timeout=60)

    def meet(event: Event) -> None:
        if isinstance(event, FirstBatch):
            both.wait()

    mine, patient = os.sched_getaffinity(0), Budget(0.3, 60.0, 30.0)
    handles = [
        executor.submit(request(prepared, tmp_path / name, SAYS, audit=False, budget=patient), meet) for name in "ab"
    ]
    assert executor.capacity() == 2
    assert [handle.result(90).status for handle in handles] == ["ok", "ok"]
    executor.close()
    logs = [(tmp_path / name / "run.log").read_text() for name in "ab"]
    seen = {line for log in logs for line in log.splitlines() if line.startswith("ON")}
    assert seen == {f"ON GPU-{i} [{cores[i % len(cores)]}]" for i in range(2)}
    assert os.sched_getaffinity(0) == mine


def test_of_two_numbers_of_threads_the_smaller_one_counts() -> None:
    assert child_variables({"OMP_NUM_THREADS": "1", "A": "b"}, [("OMP_NUM_THREADS", "4"), ("C", "d")]) == {
        "OMP_NUM_THREADS": "1",
        "A": "b",
        "C": "d",
    }
