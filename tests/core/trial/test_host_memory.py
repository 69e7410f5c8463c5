"""The memory of a container counts, not that of the machine around it."""

import psutil
import pytest

from autoresearch.core.fleet import slots
from autoresearch.core.trial import host_memory as memory
from autoresearch.core.trial.processes import MEMORY_SHARE, ProcessSupervisor
from autoresearch.core.trial.record import Record

MIB = 2**20


def group(folder, limit, usage, *, names=memory.TWO, pages=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names.limit).write_text(f"{limit}\n")
    (folder / names.usage).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"cache 5\n{names.pages} {pages}\nmapped 3\n")


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Returns a function that says where this process is, and the mount point."""
    own = tmp_path / "own"
    monkeypatch.setattr(memory, "OWN_GROUPS", own)
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    return own.write_text, tmp_path / "groups"


def test_without_control_groups_it_is_the_machines(groups):
    assert memory.host_memory().total == psutil.virtual_memory().total


def test_the_smallest_limit_of_a_group_and_those_above_it_counts(groups):
    say, root = groups
    say("1:name=systemd:/elsewhere\n0::/slice/run\n")
    group(root, "max", 900 * MIB)
    group(root / "slice", 256 * MIB, 100 * MIB, pages=20 * MIB)
    group(root / "slice/run", "max", 50 * MIB)
    assert memory.host_memory() == memory.HostMemory(256 * MIB, 176 * MIB)
    group(root / "slice/run", 64 * MIB, 70 * MIB)
    assert memory.host_memory() == memory.HostMemory(64 * MIB, 0)


def test_version_1_and_a_path_of_the_host_that_a_container_does_not_see(groups):
    say, root = groups
    say("9:cpu,memory:/docker/0123\n8:pids:/\n")
    group(root / "memory", 128 * MIB, 28 * MIB, names=memory.ONE)
    assert memory.host_memory() == memory.HostMemory(128 * MIB, 100 * MIB)
    group(root / "memory", 2**63 - 4096, 28 * MIB, names=memory.ONE)
    assert memory.host_memory().total == psutil.virtual_memory().total


@pytest.mark.parametrize("limit", ["", "max", "many", "-"])
def test_a_group_that_says_nothing_sets_no_limit(groups, limit):
    say, root = groups
    say("0::/../..\n")
    group(root, limit, "?")
    assert memory.host_memory().total == psutil.virtual_memory().total


def test_trials_and_slots_keep_to_the_containers_memory(groups, monkeypatch, tmp_path):
    say, root = groups
    say("0::/\n")
    group(root, 6000 * MIB, 0)
    supervisor = ProcessSupervisor(Record(tmp_path / "trial", ""), memory_limit_mb=None, disk_limit_mb=1, cancel=None)
    assert supervisor.memory_limit_mb == int(MEMORY_SHARE * 6000)
    monkeypatch.setattr(slots, "usable_cores", lambda: list(range(8)))
    [slot] = slots.find_slots("cpu", None)
    assert slot.memory_mb == supervisor.memory_limit_mb
